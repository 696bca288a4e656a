"""The bulk of the requests: wrk, which stops after a number of them and checks each answer."""

from __future__ import annotations

import signal
import subprocess
import threading
from dataclasses import dataclass
from pathlib import Path

# wrk stops after a time, not after a number. So the script stops its only thread, and says so;
# a SIGINT then ends the time. Half of the requests have a header section that was never sent
# before, the others one of a few hundred.
SCRIPT = """
local wanted, expected, size, method, base, seed, closing
local sent, received, wrong, first_wrong = 0, 0, 0, ""
local bodies = {}
for _, length in ipairs({10, 300, 1000, 8000, 65536}) do
  bodies[#bodies + 1] = string.rep("soak-body ", length / 10 + 1):sub(1, length)
end

function init(args)
  wanted, expected, size = tonumber(args[1]), tonumber(args[2]), tonumber(args[3])
  method, base, seed = args[4], args[5], args[6]
  closing = args[7] == "close" and "Connection: close\\r\\n" or ""
end

function request()
  sent = sent + 1
  local fields = string.format(
    "Host: soak.test\\r\\nUser-Agent: soak/%d\\r\\nAccept: */*\\r\\nCookie: s=%d\\r\\n%s",
    sent % 17, sent % 23, closing)
  if sent % 2 == 0 then
    fields = fields .. string.format("X-Request-Id: %s-%d\\r\\n", seed, sent)
  end
  local path = base:gsub("@", tostring(sent % 1000))
  if method == "GET" then
    return "GET " .. path .. " HTTP/1.1\\r\\n" .. fields .. "\\r\\n"
  end
  local body = bodies[sent % #bodies + 1]
  return method .. " " .. path .. " HTTP/1.1\\r\\n" .. fields
    .. "Content-Length: " .. #body .. "\\r\\n\\r\\n" .. body
end

function response(status, headers, body)
  received = received + 1
  if status ~= expected or (size >= 0 and #body ~= size) then
    wrong = wrong + 1
    first_wrong = string.format("%d, %d bytes", status, #body)
  end
  if received == wanted then
    io.write(string.format("FINISHED %d %d %s\\n", received, wrong, first_wrong))
    io.flush()
    wrk.thread:stop()
  end
end

function done(summary)
  local e = summary.errors
  io.write(string.format("ERRORS %d\\n", e.connect + e.read + e.write + e.timeout))
end
"""
CONNECTIONS = 32
LIMIT_SECONDS = 300


@dataclass(frozen=True)
class Requests:
    """What one run of wrk sends, and what has to come back.

    Attributes:
        path: with ``@`` where a number goes, so that request lines differ too.
        status: the only right one.
        size: of the right answer's body; -1: any.
        closing: a connection for each request.
    """

    path: str
    status: int = 200
    size: int = -1
    method: str = "GET"
    closing: bool = False


def run(program: str, folder: Path, url: str, requests: Requests, count: int, seed: str) -> str:
    """Send ``count`` requests; return what was wrong, in words, or nothing."""
    if count == 0:
        return ""
    script = folder / "soak.lua"
    if not script.exists():
        script.write_text(SCRIPT, "utf-8")
    connections = min(CONNECTIONS, count)
    command = [program, "-t1", f"-c{connections}", f"-d{LIMIT_SECONDS}s", "--timeout", "20s"]
    command += ["-s", str(script), url, "--", str(count), str(requests.status)]
    command += [str(requests.size), requests.method, requests.path, seed]
    command += ["close" if requests.closing else "keep"]
    finished, errors, lines = "", "", []
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        guard = threading.Timer(LIMIT_SECONDS + 30, process.kill)
        guard.start()
        try:
            assert process.stdout is not None
            for line in process.stdout:
                lines.append(line.strip())
                if line.startswith("FINISHED "):
                    finished = line.removeprefix("FINISHED ").strip()
                    process.send_signal(signal.SIGINT)
                elif line.startswith("ERRORS "):
                    errors = line.removeprefix("ERRORS ").strip()
        finally:
            guard.cancel()
            process.kill()
    if not finished:
        return f"wrk did not come to its end: {' / '.join(lines[-3:])}"
    _, wrong, *first = finished.split(" ", 2)
    if wrong != "0" or errors != "0":
        return f"{wrong} of {count} wrong ({' '.join(first)}), {errors or '?'} broken off"
    return ""
