"""Walks through the proxy for scripts/demo: routes are added, asked for, shown and removed.

Usage: walk.py [--once]
"""

from __future__ import annotations

import json
import sys
from contextlib import closing
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from scripts.lib.demo.stage import (
    AUTHORISED,
    BEGINNING,
    STATUS,
    STREAM,
    TOKEN,
    Stage,
    WebSocket,
    WrongAnswer,
    curl,
    expect,
    perform,
    started,
)


def walk(stage: Stage) -> None:
    """Add the routes and look at every target; raises WrongAnswer."""
    public, api = f"http://127.0.0.1:{stage.port}", stage.api
    print("\n--- Three routes are added through the REST API (201: in force on every worker)")
    for path, name in (("/", "page"), ("/clock", "clock"), ("/echo", "echo")):
        stage.add_route(path, name)
    expect(curl(api, show=STATUS), "403", "API without the token")
    table = curl(*AUTHORISED, api)
    if set(json.loads(table)) != {"/", "/clock", "/echo"}:
        raise WrongAnswer(f"routing table: {table}")

    print("\n--- What goes where")
    expect(curl(f"{public}/", show=BEGINNING), "It works", "the page")
    expect(curl(f"{public}/clock/events", show=STREAM), "data: ", "the clock")
    print(f"\n(WebSocket) ws://127.0.0.1:{stage.port}/echo/socket")
    with closing(WebSocket(stage.port)) as socket:
        echoed = socket.echo(b"hello from the demo")
    print(f"sent 'hello from the demo', got back {echoed.decode()!r}")
    expect(echoed.decode(), "hello from the demo", "the echo")

    print("\n--- A route that is deleted is gone at once")
    stage.add_route("/gone", "echo")
    gone = f"{api}/gone"
    expect(curl("-X", "DELETE", *AUTHORISED, gone, show=STATUS), "204", "deleting")
    expect(curl(*AUTHORISED, gone, show=STATUS), "404", "a deleted route")


def stay(stage: Stage) -> None:
    """Say where things are, and wait for Ctrl-C."""
    print(f"""
--- Open in a browser
  http://127.0.0.1:{stage.port}/          a page
  http://127.0.0.1:{stage.port}/clock/    server-sent events
  http://127.0.0.1:{stage.port}/echo/     a WebSocket

All of the above can be copied into another terminal while the demo runs:
  export CONFIGPROXY_AUTH_TOKEN={TOKEN}
  curl -sS -H "Authorization: token $CONFIGPROXY_AUTH_TOKEN" {stage.api}

The proxy's log is {stage.log}. Ctrl-C ends the demo.""")
    stage.proxy.wait()
    raise WrongAnswer(f"the proxy ended with {stage.proxy.returncode}")


def run(folder: Path, once: bool) -> None:
    """Start everything, walk through it, and stay unless told otherwise."""
    print(f"$ export CONFIGPROXY_AUTH_TOKEN={TOKEN}")
    with started(folder) as stage:
        walk(stage)
        if not once:
            stay(stage)
    print("\nDemo: every answer was right.")


if __name__ == "__main__":
    sys.exit(perform("demo", lambda folder: run(folder, once="--once" in sys.argv[1:])))
