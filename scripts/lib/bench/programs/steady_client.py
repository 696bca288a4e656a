"""Small requests on a fixed schedule; prints one JSON line.

Usage: steady_client.py URL RATE LEAD SECONDS

Open loop: each request is sent when its time has come, whether or not those before it were
answered, on a kept connection that is free, or on a new one where none is. Its latency is
counted from that time, so that what waits in line behind a slow one counts as slow, too.
Requests of the first LEAD seconds are sent and not counted.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import selectors
import ssl
import sys
import time
from collections import Counter, deque
from urllib.parse import urlsplit

# Kept connections to begin with. Used in turn, each rests for a third of a second at 50 requests a
# second: far less than any server's limit for idle connections.
KEPT = 16
# Seconds after the last request in which answers still count.
STRAGGLERS = 10.0
LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)\r\n", re.IGNORECASE)

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class SteadyClient:
    """Sends the requests and collects what becomes of them."""

    def __init__(self, url: str, rate: float, lead: float, seconds: float) -> None:
        parts = urlsplit(url)
        self._host, self._port = str(parts.hostname), int(parts.port or 0)
        self._tls = _trusting_context() if parts.scheme == "https" else None
        host = f"{self._host}:{self._port}"
        self._request = f"GET {parts.path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()
        self._rate = rate
        self._lead = round(rate * lead)
        self._count = self._lead + round(rate * seconds)
        self._free: deque[Connection] = deque()
        self.milliseconds: list[float] = []
        self.late: list[float] = []
        self.failed: Counter[str] = Counter()

    async def run(self) -> None:
        """Send all requests; wait a while for the last answers."""
        self._free.extend(await asyncio.gather(*(self._connect() for _ in range(KEPT))))
        tasks = []
        began = time.perf_counter()
        for number in range(self._count):
            due = began + number / self._rate
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            tasks.append(asyncio.create_task(self._ask(due, counts=number >= self._lead)))
        _, unanswered = await asyncio.wait(tasks, timeout=STRAGGLERS)
        for task in unanswered:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _connect(self) -> Connection:
        return await asyncio.open_connection(self._host, self._port, ssl=self._tls)

    async def _ask(self, due: float, *, counts: bool) -> None:
        """One request, due at that time."""
        if counts:
            self.late.append((time.perf_counter() - due) * 1000)
        connection = None
        try:
            connection = self._free_connection() or await self._connect()
            await self._exchange(*connection)
        except (OSError, EOFError, ValueError) as error:
            self._close(connection)
            if counts:
                self.failed["closed" if isinstance(error, EOFError) else str(error)] += 1
        except asyncio.CancelledError:
            self._close(connection)
            if counts:
                self.failed["no answer"] += 1
        else:
            self._free.append(connection)
            if counts:
                self.milliseconds.append((time.perf_counter() - due) * 1000)

    def _free_connection(self) -> Connection | None:
        """The one that has rested longest; those that the server has closed are let go."""
        while self._free:
            connection = self._free.popleft()
            if not connection[0].at_eof():
                return connection
            self._close(connection)
        return None

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Raises OSError, EOFError, or ValueError for an answer that is not the right one."""
        writer.write(self._request)
        head = await reader.readuntil(b"\r\n\r\n")
        length = LENGTH.search(head)
        if head[9:12] != b"200" or length is None:
            status = head.partition(b"\r\n")[0].decode("latin-1")
            raise ValueError(f"answered {status}")
        await reader.readexactly(int(length[1]))

    @staticmethod
    def _close(connection: Connection | None) -> None:
        if connection is not None:
            with contextlib.suppress(OSError):
                connection[1].transport.abort()


def _trusting_context() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def main() -> None:
    """Read the arguments, run, print."""
    url, rate, lead, seconds = sys.argv[1:]
    # What it measures must not be its own wait for a processor; only root may.
    with contextlib.suppress(PermissionError):
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
    client = SteadyClient(url, float(rate), float(lead), float(seconds))
    # select(2) waits to the microsecond, where epoll rounds up to the next millisecond.
    loop = asyncio.SelectorEventLoop(selectors.SelectSelector())
    loop.run_until_complete(client.run())
    late = sorted(client.late)
    print(
        json.dumps(
            {
                "ms": client.milliseconds,
                "failed": client.failed,
                "late_ms": late[len(late) * 99 // 100],
            }
        )
    )


if __name__ == "__main__":
    main()
