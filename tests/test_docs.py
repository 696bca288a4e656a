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
from tests.kit.server import REPOSITORY, free_ports

BLOB = "https://github.com/chp-gevent/chp-gevent/blob/main/"
PAGES = [
    *(
        REPOSITORY / name
        for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md")
    ),
    *sorted((REPOSITORY / "docs").rglob("*.md")),
]
FENCED = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
# Of programs that the pages speak of: pip, curl, docker, scripts of ours …
OTHERS_OPTIONS = set(
    "--bind --directory --retry --retry-connrefused --now --time --cpus --append --groups --delete "
    "--deploy-hook --user --seconds --only --cases --proxies --rounds --quick --output --requests "
    "--tunnels --changes --check --system --log --strict --config --rate --duration --format "
    "--full-filenames --data --http2 --signal --kill-whom --flag".split()
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


def section(page: Path, heading: str) -> str:
    """Return what is under a heading of a page."""
    text = page.read_text("utf-8")
    begin = text.index(f"\n## {heading}\n") + 1
    end = text.find("\n## ", begin)
    return text[begin : end if end >= 0 else len(text)]


def commands(text: str) -> list[str]:
    """Return the commands of the console blocks of a text."""
    blocks = re.findall(r"^```console\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [command for block in blocks for command in re.split(r"^\$ ", block, flags=re.M)[1:]]


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
    output = folder / "output"
    with output.open("wb") as file:
        process = subprocess.Popen(
            ["bash", "-euc", ports.instead(script)],
            cwd=folder,
            env={**environment, "PYTHONPATH": str(REPOSITORY)},
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


def test_the_commands_of_the_readme_work(tmp_path: Path) -> None:
    script = "".join(commands(section(REPOSITORY / "README.md", "Use")))
    assert script.count("curl") == 2
    said = run(script, tmp_path)
    assert "Error code: 404" in said, "as the page says: of Python's server"


def test_the_first_steps_work(tmp_path: Path) -> None:
    script = "".join(commands(section(REPOSITORY / "docs" / "tutorial.md", "A proxy")))
    said = run(script, tmp_path)
    for line in ('{"status":"OK"}', "this is one", "this is two"):
        assert line in said
    table = re.search(r'\{"/one":.*', said)
    assert table is not None
    assert table[0].count('"target"') == 2
