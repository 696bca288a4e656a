"""The documentation: its links lead somewhere, its options exist, its first commands work."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import pytest

from chp_gevent.config.table import SECTIONS
from tests.kit.pages import DOCS, blocks, commands, printed, section
from tests.kit.server import REPOSITORY, free_ports

BLOB = "https://github.com/chp-gevent/chp-gevent/blob/main/"
PAGES = [
    *(
        REPOSITORY / name
        for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md")
    ),
    *sorted(DOCS.rglob("*.md")),
]
FENCED = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
# Of programs that the pages speak of: pip, curl, docker, scripts of ours …
OTHERS_OPTIONS = set(
    "--bind --directory --retry --retry-connrefused --now --time --cpus --append --groups --delete "
    "--deploy-hook --user --seconds --only --cases --proxies --rounds --quick --output --requests "
    "--tunnels --changes --check --system --log --strict --config --rate --duration --format "
    "--full-filenames --data --http2 --signal --kill-whom --flag --network "
    "--name --read-only --upgrade --system --webroot --webroot-path --standalone --cacert".split()
)


def anchors(path: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    text = FENCED.sub("", path.read_text("utf-8"))
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    plain = [re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading) for heading in headings]
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in plain}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_links_lead_somewhere(page: Path) -> None:
    wrong = []
    for link in LINK.findall(FENCED.sub("", page.read_text("utf-8"))):
        if link.startswith(BLOB):
            path, _, anchor = link.removeprefix(BLOB).partition("#")
            target = REPOSITORY / path
        elif "://" in link:
            continue
        else:
            path, _, anchor = link.partition("#")
            target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            wrong.append(link)
    assert wrong == []


def test_the_readme_has_links_that_work_elsewhere_too() -> None:
    """On PyPI there are no files beside it."""
    links = LINK.findall(FENCED.sub("", (REPOSITORY / "README.md").read_text("utf-8")))
    assert [link for link in links if not link.startswith("https://")] == []
    assert len(links) > 15


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_options_that_are_spoken_of_exist(page: Path) -> None:
    ours = {option.flag for section in SECTIONS for option in section.options}
    spoken_of = set(re.findall(r"(?<![\w-])--[a-z][a-z0-9-]+(?![\w*…-])", page.read_text("utf-8")))
    scripts = "".join(
        path.read_text("utf-8", "replace")
        for path in [
            *(REPOSITORY / "scripts").rglob("*"),
            REPOSITORY / "conf" / "chp-gevent.service",
        ]
        if path.is_file() and "__pycache__" not in path.parts
    )
    unknown = spoken_of - ours - OTHERS_OPTIONS
    assert {flag for flag in unknown if flag not in scripts} == set()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_console_blocks_show_what_is_typed_behind_a_dollar(page: Path) -> None:
    """A command behind ``#`` reads as a comment."""
    for block in blocks(page.read_text("utf-8"), "console"):
        assert block.startswith("$ "), block
        assert not re.search(r"^\s*#", block, re.MULTILINE), block


def test_each_page_is_reached_from_the_first_one_and_is_part_of_the_site() -> None:
    pages = {str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md")} - {"index.md"}
    linked = {link.partition("#")[0] for link in LINK.findall((DOCS / "index.md").read_text())}
    navigation = set(re.findall(r"\S+\.md$", (REPOSITORY / "mkdocs.yml").read_text(), re.MULTILINE))
    assert pages - linked == set()
    assert pages - navigation == set()


class Ports(NamedTuple):
    """What the ports of a page are while its commands are run here."""

    proxy: int
    api: int
    first: int
    second: int

    def instead(self, text: str) -> str:
        """Return a text with these ports."""
        for theirs, ours in zip(("8000", "8001", "9001", "9002"), self, strict=True):
            text = re.sub(rf"\b{theirs}\b", str(ours), text)
        return text


def run(script: str, folder: Path) -> str:
    """Run commands in bash, and end what they leave in the background; return what they print."""
    # The API's port is the one after the proxy's.
    while True:
        port, first, second = free_ports(3)
        if port + 1 not in (first, second):
            break
    ports = Ports(port, port + 1, first, second)
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    environment.pop("CONFIGPROXY_AUTH_TOKEN", None)
    # So that what curl gets is in lines of its own, without a meter of its progress.
    (folder / ".curlrc").write_text('silent\nshow-error\nwrite-out "\\n"\n')
    output = folder / "output"
    with output.open("wb") as file:
        process = subprocess.Popen(
            ["bash", "-euc", ports.instead(script)],
            cwd=folder,
            env={**environment, "PYTHONPATH": str(REPOSITORY), "CURL_HOME": str(folder)},
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            start_new_session=True,
        )
        try:
            code = process.wait(60)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
    said = output.read_text("utf-8", "replace")
    assert code == 0, said
    return said


def run_blocks(shown: list[str], folder: Path, then: str = "") -> str:
    """Run the commands of console blocks, which print what the page says; return all of it.

    ``then`` is a command that has to succeed after them.
    """
    said = run("".join(command for block in shown for command in commands(block)) + then, folder)
    for line in (line for block in shown for line in printed(block)):
        assert line in said.splitlines()
    return said


def test_the_commands_of_the_readme_work(tmp_path: Path) -> None:
    shown = blocks(section(REPOSITORY / "README.md", "Use"), "console")
    assert [line for block in shown for line in printed(block)] == ["It works."]
    run_blocks(shown, tmp_path)


def test_the_first_steps_work(tmp_path: Path) -> None:
    shown = blocks(section(DOCS / "tutorial.md", "A proxy"), "console")
    expected = ['{"status":"OK"}', "this is one", "this is two", "404"]
    assert [line for block in shown for line in printed(block)] == expected
    said = run_blocks(shown, tmp_path)
    table = re.search(r'\{"/one":.*', said)
    assert table is not None
    assert table[0].count('"target"') == 2


def test_a_certificate_is_tried_and_renewed(tmp_path: Path) -> None:
    page = DOCS / "how-to" / "tls.md"
    tried = blocks(section(page, "A certificate to try it with"), "console")
    renewed = blocks(section(page, "When it is renewed"), "console")[:1]
    # Each is its own authority: the second one is believed only when it is used.
    then = "curl -sS --retry 9 --retry-all-errors --cacert cert.pem https://localhost:8000/_chp_healthz"
    said = run_blocks([*tried, *renewed], tmp_path, then)
    assert said.count('{"status":"OK"}') == 2
    assert "--ssl: the files have changed, and are in use as they are now" in said


def test_the_hook_of_certbot_copies(tmp_path: Path) -> None:
    (hook,) = blocks(section(DOCS / "how-to" / "tls.md", "Under systemd"), "sh")
    theirs, ours = tmp_path / "live", tmp_path / "tls"
    theirs.mkdir()
    for name in ("privkey.pem", "fullchain.pem"):
        (theirs / name).write_text(f"this is {name}")
    # A group of this account's instead of the service's.
    hook = hook.replace("/etc/chp-gevent/tls", str(ours))
    hook = hook.replace("-g chp-gevent-tls", f"-g {os.getgid()}")
    subprocess.run(
        ["sh", "-c", hook],
        env={"PATH": os.environ["PATH"], "RENEWED_LINEAGE": str(theirs)},
        check=True,
        timeout=30,
    )
    assert (ours / "key.pem").read_text() == "this is privkey.pem"
    assert (ours / "cert.pem").read_text() == "this is fullchain.pem"
    assert (ours / "key.pem").stat().st_mode & 0o777 == 0o640
    assert ours.stat().st_mode & 0o777 == 0o750


def test_the_options_to_try_beside_chp_are_taken(tmp_path: Path) -> None:
    (tried,) = [
        block
        for block in blocks(section(DOCS / "how-to" / "migrate.md", "The change"), "console")
        if "--port 0" in block
    ]
    (command,) = commands(tried)
    then = "&\nuntil grep -q 'Proxy API at' log; do sleep 0.1; done\n"
    said = run(f"{command.strip()} > log 2>&1 {then} cat log", tmp_path)
    assert "Proxying http://127.0.0.1:0 to (no default)" in said
