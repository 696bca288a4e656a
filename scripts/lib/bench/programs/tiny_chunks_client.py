"""One hostile upload: chunks of one byte, as fast as they are taken; prints one JSON line.

Usage: tiny_chunks_client.py HOST PORT PATH SECONDS

Where the server breaks the upload off, the next one begins at once.
"""

from __future__ import annotations

import json
import select
import socket
import sys
import time

CHUNKS = memoryview(b"1\r\na\r\n" * 43690)
# Seconds between attempts to connect: a server that refuses is not to be measured by a busy loop.
PAUSE = 0.05


def upload(address: tuple[str, int], path: str, end: float) -> tuple[int, str]:
    """Send until ``end``: bytes of chunks sent, and why it ended sooner, or nothing."""
    sent = 0
    try:
        with socket.create_connection(address, timeout=5) as sock:
            head = f"POST {path} HTTP/1.1\r\nHost: {address[0]}:{address[1]}\r\n"
            sock.sendall(f"{head}Transfer-Encoding: chunked\r\n\r\n".encode())
            sock.setblocking(False)
            # Of the chunks, from here on: a piece that was taken in part is finished first.
            position = 0
            while (left := end - time.monotonic()) > 0:
                readable, writable, _ = select.select([sock], [sock], [], left)
                if readable:
                    answer = sock.recv(4096).partition(b"\r\n")[0].decode("latin-1")
                    return sent, f"answered {answer}" if answer else "closed"
                if writable:
                    taken = sock.send(CHUNKS[position:])
                    sent += taken
                    position = (position + taken) % len(CHUNKS)
    except OSError as error:
        return sent, error.strerror or str(error)
    return sent, ""


def main() -> None:
    """Upload until the time is up, and print what the server did about it."""
    host, port, path, seconds = sys.argv[1:]
    end = time.monotonic() + float(seconds)
    total, broken = 0, []
    while time.monotonic() < end:
        sent, why = upload((host, int(port)), path, end)
        total += sent
        if why:
            broken.append(why)
            time.sleep(PAUSE)
    print(json.dumps({"sent": total, "broken": broken}))


if __name__ == "__main__":
    main()
