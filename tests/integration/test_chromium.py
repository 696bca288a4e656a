"""Headless Chromium on the demo's pages, through two workers."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from websockets.sync.client import ClientConnection, connect

from tests.kit import processes
from tests.kit.peers import wait_until
from tests.kit.server import REPOSITORY, Proxy

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or ""

FLAGS = [
    "--headless",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--no-proxy-server",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
    # It does not start as root with its sandbox, and these pages are ours.
    "--no-sandbox",
    "--remote-debugging-port=0",
]

START_TIMEOUT = 45.0
PAGE_TIMEOUT = 15.0

pytestmark = [
    pytest.mark.skipif(not CHROMIUM, reason="needs chromium"),
    pytest.mark.timeout(120),
]


class Page:
    """A tab, spoken to over the DevTools protocol."""

    def __init__(self, debugger: ClientConnection, session: str) -> None:
        self._debugger = debugger
        self._session = session

    def open(self, url: str) -> None:
        """Go to a page; raises AssertionError when that fails."""
        answer = call(self._debugger, "Page.navigate", self._session, url=url)
        assert "errorText" not in answer, answer

    def run(self, script: str) -> Any:
        """Run JavaScript in the page; return its value."""
        answer = call(
            self._debugger,
            "Runtime.evaluate",
            self._session,
            expression=script,
            returnByValue=True,
        )
        return answer["result"].get("value")

    def text(self, selector: str) -> str:
        """Return the text of an element in the DOM as it is now, empty without one."""
        return str(self.run(f"document.querySelector({json.dumps(selector)})?.textContent ?? ''"))


_calls = itertools.count(1)


def call(
    debugger: ClientConnection, method: str, session: str | None = None, **parameters: Any
) -> dict[str, Any]:
    """Call a method of the DevTools protocol; return its result, pass over events."""
    number = next(_calls)
    request: dict[str, Any] = {"id": number, "method": method, "params": parameters}
    if session is not None:
        request["sessionId"] = session
    debugger.send(json.dumps(request))
    while True:
        answer = json.loads(debugger.recv(PAGE_TIMEOUT))
        if answer.get("id") == number:
            assert "error" not in answer, (method, answer["error"])
            return dict(answer["result"])


@pytest.fixture(scope="module")
def debugger(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClientConnection]:
    """A running Chromium."""
    profile = tmp_path_factory.mktemp("chromium")
    with browser(profile) as process:
        address = wait_until(
            lambda: devtools_address(process, profile), START_TIMEOUT, "Chromium is up"
        )
        with connect(address, max_size=None, proxy=None) as debugger:
            yield debugger
            call(debugger, "Browser.close")
        process.wait(PAGE_TIMEOUT)


@contextmanager
def browser(profile: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run Chromium until the end of the block; nothing of it stays behind."""
    log = profile / "chromium.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [CHROMIUM, *FLAGS, f"--user-data-dir={profile}", "about:blank"],
            env={**os.environ, "HOME": str(profile)},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        # Its crash handler and its zygotes are in its session.
        for member in processes.tree(process.pid):
            with suppress(ProcessLookupError):
                os.kill(member.pid, signal.SIGKILL)
        process.wait(PAGE_TIMEOUT)


def devtools_address(process: subprocess.Popen[bytes], profile: Path) -> str | None:
    """Return where Chromium's debugger listens, None as long as it has not said so."""
    assert process.poll() is None, (profile / "chromium.log").read_text(errors="replace")
    try:
        port, path = (profile / "DevToolsActivePort").read_text().split()
    except (OSError, ValueError):
        return None
    return f"ws://127.0.0.1:{port}{path}"


@pytest.fixture
def page(debugger: ClientConnection) -> Iterator[Page]:
    """A new tab."""
    target = call(debugger, "Target.createTarget", url="about:blank")["targetId"]
    attached = call(debugger, "Target.attachToTarget", targetId=target, flatten=True)
    yield Page(debugger, attached["sessionId"])
    call(debugger, "Target.closeTarget", targetId=target)


@pytest.fixture
def demo(start_proxy: Callable[..., Proxy]) -> Iterator[Proxy]:
    """A server with two workers that routes to the demo's targets."""
    with subprocess.Popen(
        [sys.executable, str(REPOSITORY / "scripts" / "lib" / "demo" / "targets.py")],
        stdout=subprocess.PIPE,
        text=True,
    ) as targets:
        try:
            assert targets.stdout is not None
            ports = json.loads(targets.stdout.readline())
            proxy = start_proxy(workers=2)
            for path, name in (("/", "page"), ("/clock", "clock"), ("/echo", "echo")):
                proxy.api.add(path, f"http://127.0.0.1:{ports[name]}")
            yield proxy
        finally:
            targets.kill()


def test_the_websocket_page_shows_what_it_sent(demo: Proxy, page: Page) -> None:
    page.open(f"{demo.url}/echo/")
    wait_until(lambda: page.text("#log") == "connected", PAGE_TIMEOUT, "the page is connected")

    for message in ("hello", "秀樹 🚀"):
        page.run(
            f"document.forms[0].text.value = {json.dumps(message)};"
            "document.forms[0].requestSubmit()"
        )
        wait_until(
            partial(lambda message: page.text("#log").endswith(f"\n{message}"), message),
            PAGE_TIMEOUT,
            "the echo is in the DOM",
        )

    assert page.text("#log").split("\n") == ["connected", "hello", "秀樹 🚀"]
    # A clean close by the page, which reaches the target and comes back.
    page.run("socket.close(4003)")
    wait_until(lambda: page.text("#log").endswith("\nclosed"), PAGE_TIMEOUT, "the tunnel is closed")


def test_the_clock_page_shows_each_event(demo: Proxy, page: Page) -> None:
    page.open(f"{demo.url}/clock/")
    seen: set[str] = set()

    def has_ticked_twice() -> bool:
        shown = page.text("#time")
        if ":" in shown:
            seen.add(shown)
        return len(seen) > 1

    wait_until(has_ticked_twice, PAGE_TIMEOUT, "the clock goes")
