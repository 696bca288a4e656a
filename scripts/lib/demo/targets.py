"""The three small targets of scripts/demo, in one process: a page, an SSE clock, an echo.

Prints one JSON line with their ports, then serves until it is ended.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import gevent
from gevent.pywsgi import WSGIServer
from geventwebsocket import WebSocketError
from geventwebsocket.handler import WebSocketHandler

Environ = dict[str, Any]
StartResponse = Callable[[str, list[tuple[str, str]]], Any]

HTML = [("Content-Type", "text/html; charset=utf-8"), ("Cache-Control", "no-store")]

STYLE = """<!doctype html>
<meta charset="utf-8"><meta name="viewport" content="width=device-width">
<style>
  body { font: 16px/1.5 system-ui, sans-serif; max-width: 40rem; margin: 3rem auto }
  code, #log { font-family: ui-monospace, monospace } #log { white-space: pre }
  input { font: inherit; padding: .3rem }
</style>
"""

PAGE = (
    STYLE
    + """<title>chp-gevent demo</title>
<h1>It works</h1>
<p>This page came from a server on <code>%(server)s</code>, through the proxy.</p>
<ul>
  <li><a href="/clock/">/clock/</a> is a second server: it sends the time (SSE).</li>
  <li><a href="/echo/">/echo/</a> is a third: it sends back what a WebSocket says to it.</li>
</ul>
<p>What the proxy told this server about you: <code>%(forwarded)s</code></p>
"""
)

CLOCK_PAGE = (
    STYLE
    + """<title>Clock</title>
<h1>Clock</h1>
<p id="time">waiting for the first event</p>
<p><a href="/">back</a></p>
<script>
  new EventSource("/clock/events").onmessage = event => {
    document.getElementById("time").textContent = event.data
  }
</script>
"""
)

ECHO_PAGE = (
    STYLE
    + """<title>Echo</title>
<h1>Echo</h1>
<form><input name="text" value="hello" autofocus> <button>Send</button></form>
<div id="log">connecting</div>
<p><a href="/">back</a></p>
<script>
  const log = document.getElementById("log")
  const scheme = location.protocol === "https:" ? "wss://" : "ws://"
  const socket = new WebSocket(scheme + location.host + "/echo/socket")
  socket.onopen = () => { log.textContent = "connected" }
  socket.onclose = () => { log.textContent += "\\nclosed" }
  socket.onmessage = event => { log.textContent += "\\n" + event.data }
  document.forms[0].onsubmit = event => {
    event.preventDefault()
    socket.send(document.forms[0].text.value)
  }
</script>
"""
)


def page(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """A plain page."""
    names = ("X_FORWARDED_FOR", "X_FORWARDED_PROTO", "X_FORWARDED_HOST", "X_FORWARDED_PORT")
    forwarded = ", ".join(environ.get(f"HTTP_{name}", "-") for name in names)
    server = f"{environ['SERVER_NAME']}:{environ['SERVER_PORT']}"
    start_response("200 OK", HTML)
    escaped = forwarded.replace("&", "&amp;").replace("<", "&lt;")
    return [(PAGE % {"server": server, "forwarded": escaped}).encode()]


def clock(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """``…/events``: the time, once a second, as server-sent events; else a page that shows it."""
    if not environ["PATH_INFO"].endswith("/events"):
        start_response("200 OK", HTML)
        return [CLOCK_PAGE.encode()]
    start_response("200 OK", [("Content-Type", "text/event-stream"), ("Cache-Control", "no-store")])
    return _ticks()


def _ticks() -> Iterator[bytes]:
    while True:
        yield f"data: {time.strftime('%H:%M:%S')}\n\n".encode()
        gevent.sleep(1)


def echo(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """A WebSocket that sends messages back; a page that talks to it for everybody else."""
    socket = environ.get("wsgi.websocket")
    if socket is None:
        start_response("200 OK", HTML)
        return [ECHO_PAGE.encode()]
    try:
        while (message := socket.receive()) is not None:
            socket.send(message)
    except WebSocketError:
        pass  # the client went away
    return []


def main() -> None:
    """Start the three servers on free ports of loopback."""
    servers = {
        name: WSGIServer(("127.0.0.1", 0), application, log=None, handler_class=WebSocketHandler)
        for name, application in {"page": page, "clock": clock, "echo": echo}.items()
    }
    for server in servers.values():
        server.start()
    print(json.dumps({name: server.server_port for name, server in servers.items()}), flush=True)
    gevent.wait()


if __name__ == "__main__":
    main()
