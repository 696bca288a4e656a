"""scripts/provision.sh, with folders of its own in the system's places, and no systemd."""

from __future__ import annotations

import os
import re
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from tests.kit.installation import REPOSITORY, make_installation, namespace, shell

SCRIPT = REPOSITORY / "scripts" / "provision.sh"
UNIT = REPOSITORY / "conf" / "chp-gevent.service"
STORAGE = "--storage-backend sqlite:/var/lib/chp-gevent/routes.sqlite"
DEFAULT = f"CHP_OPTIONS=--port 8000 --api-ip 127.0.0.1 {STORAGE}"

UNSHARED = namespace()
needs_namespaces = pytest.mark.skipif(UNSHARED is None, reason="no namespaces for this user")

# Takes the system's folders from the box, then runs the script.
SETUP = """
for folder in opt etc run; do mount --bind "$BOX/$folder" "/$folder"; done
export PATH="$BOX/bin:$PATH"
exec "$@"
"""
# Notes its arguments, then does what a file of its name with .does says.
PROGRAM = """#!/bin/sh
echo "$(basename "$0") $*" >>"$BOX/calls"
[ ! -e "$0.does" ] || . "$0.does"
"""


QUESTION = re.compile(r"systemctl (--version|is-active|show) ?")


class Box:
    """A system that the script can be run in as often as one likes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("opt", "etc/systemd/system", "run/systemd/system", "bin"):
            (folder / name).mkdir(parents=True)
        for name in ("passwd", "group", "nsswitch.conf", "ld.so.cache"):
            if Path("/etc", name).exists():
                (folder / "etc" / name).write_bytes(Path("/etc", name).read_bytes())
        if Path("/etc/alternatives").exists():
            (folder / "etc/alternatives").mkdir()
            for link in Path("/etc/alternatives").iterdir():
                if link.is_symlink():
                    (folder / "etc/alternatives" / link.name).symlink_to(os.readlink(link))
        for name in ("systemctl", "journalctl", "groupadd"):
            (folder / "bin" / name).write_text(PROGRAM)
            (folder / "bin" / name).chmod(0o755)
        self.prefix = folder / "opt" / "chp-gevent"
        self.settings = folder / "etc" / "chp-gevent" / "environment"
        make_installation(self.prefix)
        self._move_to_its_place()

    def _move_to_its_place(self) -> None:
        """Name the folder by the path that it has in the box."""
        command = self.prefix / "bin" / "chp-gevent"
        command.write_text(command.read_text().replace(str(self.prefix), "/opt/chp-gevent"))

    def program_does(self, name: str, script: str) -> None:
        """Have one of the system's programs do something."""
        (self.folder / "bin" / f"{name}.does").write_text(script)

    def provision(self, *options: str, umask: int = 0o022) -> subprocess.CompletedProcess[str]:
        """Run the script; both outputs in one."""
        assert UNSHARED is not None
        return subprocess.run(
            [*UNSHARED, "bash", "-euc", SETUP, "bash", str(SCRIPT), *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={
                "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
                "BOX": str(self.folder),
                "PYTHON": sys.executable,
                # Nothing has to be installed.
                "PIP_INDEX_URL": "http://127.0.0.1:9/simple",
            },
            umask=umask,
            text=True,
            timeout=100,
            check=False,
        )

    def calls(self) -> list[str]:
        """Return what programs were called with since the last time, questions left out."""
        file = self.folder / "calls"
        found = file.read_text().splitlines() if file.exists() else []
        file.unlink(missing_ok=True)
        return [call for call in found if not QUESTION.match(call)]

    def options(self) -> str:
        """Return the line of the settings that has the options."""
        lines = self.settings.read_text().splitlines()
        (found,) = [line for line in lines if line.startswith("CHP_OPTIONS=")]
        return found


@pytest.fixture
def box(tmp_path: Path) -> Box:
    """A system where the package is installed, and nothing else."""
    return Box(tmp_path)


def as_systemd_reads_it(line: str) -> list[str]:
    """Return the arguments that systemd makes of a line of an EnvironmentFile= in ``$CHP_OPTIONS``.

    A value that does not begin with a quote is taken as it is, but for backslashes
    (parse_env_file); words are split at spaces, and quotes and backslashes in them removed
    (extract_first_word).
    """
    value, escaped = "", False
    for character in line.partition("=")[2]:
        escaped = character == "\\" and not escaped
        value += "" if escaped else character
    words: list[str] = []
    word: str | None = None
    quote, escaped = "", False
    for character in value:
        if escaped:
            word, escaped = (word or "") + character, False
        elif character == "\\":
            escaped = True
        elif quote:
            word, quote = ((word or ""), "") if character == quote else (word + character, quote)  # type: ignore[operator]
        elif character in "\"'":
            word, quote = word or "", character
        elif character == " ":
            words += [] if word is None else [word]
            word = None
        else:
            word = (word or "") + character
    return words + ([] if word is None else [word])


@pytest.mark.parametrize(
    "options",
    [
        ["--port", "8000", "--api-ip", "127.0.0.1"],
        ["--custom-header", "X-Site: my hub"],
        ["--custom-header=X-Site: my hub", "--port=80"],
        ["--custom-header", "X-Quoted: \"a\" and 'b' and \\c\\ and $HOME `x` %n"],
        ["--default-target", "", "--ip", "::"],
        ["--default-target", "http://hub/#?a=b&c;d"],
        ["--custom-header", "X-Name: caf\u00e9", "--trusted-proxies", "10.0.0.0/8, ::1"],
    ],
)
def test_systemd_reads_the_options_that_were_given(options: list[str]) -> None:
    functions = "eval \"$(sed -n '/^options_line() {/,/^}/p; /^quoted() {/,/^}/p' "
    line = shell(f'{functions} {SCRIPT})"; options_line "$@"', *options, env={"LC_ALL": "C.UTF-8"})
    assert as_systemd_reads_it(line.removesuffix("\n")) == options


@needs_namespaces
def test_a_first_run_makes_settings_and_starts_the_service(box: Box) -> None:
    done = box.provision("--port", "8000", "--custom-header", "X-Site: my hub")
    assert done.returncode == 0, done.stdout
    assert box.options() == f'CHP_OPTIONS=--port 8000 --custom-header "X-Site: my hub" {STORAGE}'
    assert "\nCONFIGPROXY_AUTH_TOKEN=" in "\n" + box.settings.read_text()
    assert stat.S_IMODE(box.settings.stat().st_mode) == 0o600
    assert (box.folder / "etc/systemd/system/chp-gevent.service").read_text() == UNIT.read_text()
    assert box.calls() == [
        "groupadd --system chp-gevent-sockets",
        "systemctl daemon-reload",
        "systemctl enable chp-gevent.service",
        "systemctl reset-failed chp-gevent.service",
        "systemctl restart chp-gevent.service",
    ]


@needs_namespaces
def test_another_store_is_the_one_that_was_given(box: Box) -> None:
    assert box.provision("--storage-backend=a.b.Store").returncode == 0
    assert box.options() == "CHP_OPTIONS=--storage-backend=a.b.Store"


@needs_namespaces
def test_settings_are_kept_and_options_that_are_not_used_are_said(box: Box) -> None:
    assert box.provision().returncode == 0
    assert box.options() == DEFAULT
    before = box.settings.read_text()
    for options in ([], ["--port", "8000", "--api-ip", "127.0.0.1"]):
        assert "NOT used" not in box.provision(*options).stdout
    done = box.provision("--port", "9000")
    assert done.returncode == 0
    assert "the options given are NOT used" in done.stdout
    assert f"\n{DEFAULT}\n" in done.stdout
    assert box.settings.read_text() == before

    token = before.splitlines()[0]
    box.settings.write_text(f"{token}\n")
    assert box.provision("--port", "9000").returncode == 0
    assert box.settings.read_text() == f"{token}\nCHP_OPTIONS=--port 9000 {STORAGE}\n"


@needs_namespaces
@pytest.mark.parametrize(
    ("options", "line"),
    [
        (["--prot", "80"], "error: unknown option '--prot' (did you mean --port?); see --help"),
        (["--custom-header", "x"], "error: A colon was expected in custom header: x"),
        (["--help"], "error: an option that only shows something can not be kept"),
        (["--socket", "a\nb"], "error: an option with a line break can't be kept in "),
    ],
)
def test_options_that_the_proxy_would_refuse_are_not_kept(
    box: Box, options: list[str], line: str
) -> None:
    done = box.provision(*options)
    assert done.returncode == 1
    assert done.stdout.strip().startswith(line)
    assert not box.settings.exists()
    assert box.calls() == []


@needs_namespaces
def test_the_service_can_read_what_is_installed_whatever_the_umask(box: Box) -> None:
    # As an earlier run left it.
    for path in [box.prefix, *box.prefix.rglob("*")]:
        if not path.is_symlink():
            path.chmod(0o700 if path.is_dir() or os.access(path, os.X_OK) else 0o600)
    assert box.provision(umask=0o077).returncode == 0
    for path in [box.prefix, *box.prefix.rglob("*")]:
        if not path.is_symlink():
            mode = stat.S_IMODE(path.stat().st_mode)
            assert mode & 0o44 == 0o44, path
            assert not (mode & 0o100) or mode & 0o11 == 0o11, path
    assert stat.S_IMODE(box.settings.parent.stat().st_mode) == 0o755
    assert stat.S_IMODE(box.settings.stat().st_mode) == 0o600


@needs_namespaces
def test_a_service_that_does_not_start_shows_the_lines_of_this_run(box: Box) -> None:
    box.program_does("systemctl", '[ "$1" != restart ] || exit 1')
    box.program_does("journalctl", "echo its lines")
    done = box.provision()
    assert done.returncode == 1
    assert "\nits lines\nerror: the service does not start. Its options are in " in done.stdout
    shown = box.calls()[-1]
    assert shown.startswith("journalctl --no-pager --lines 30 --since @")
    since = int(shown.split("@")[1].split()[0])
    assert box.folder.stat().st_ctime <= since + 1


# What systemd says of a service that was started after its settings were written.
RUNS = """
case "$1" in
  --version) echo "systemd 257 (257.9-1)" ;;
  show) date -d "+1 hour" ;;
  reload) [ ! -e "$BOX/refuses" ] || exit 0; : >"$BOX/reloaded" ;;
esac
"""
SAYS = """
[ ! -e "$BOX/refuses" ] || echo "not reloaded, the workers go on: SyntaxError: invalid syntax"
[ ! -e "$BOX/reloaded" ] || printf 'took over from version 1\\nreloaded: 2 new workers serve\\n'
"""


@needs_namespaces
def test_a_newer_systemd_is_told_of_reloads(box: Box) -> None:
    box.program_does("systemctl", RUNS)
    assert box.provision().returncode == 0
    unit = (box.folder / "etc/systemd/system/chp-gevent.service").read_text()
    assert "\nType=notify-reload\n" in unit
    assert "ExecReload" not in unit


@needs_namespaces
def test_a_service_that_runs_becomes_the_new_version_in_place(box: Box) -> None:
    box.program_does("systemctl", RUNS)
    box.program_does("journalctl", SAYS)
    assert box.provision().returncode == 0
    box.calls()
    done = box.provision()
    assert done.returncode == 0, done.stdout
    calls = [call for call in box.calls() if call.startswith("systemctl")]
    assert calls == ["systemctl reload chp-gevent.service"]
    assert "took over from version 1\n" in done.stdout


@needs_namespaces
def test_a_version_that_is_refused_is_a_failure(box: Box) -> None:
    box.program_does("systemctl", RUNS)
    box.program_does("journalctl", SAYS)
    assert box.provision().returncode == 0
    (box.folder / "refuses").touch()
    done = box.provision()
    assert done.returncode == 1
    assert "not reloaded, the workers go on: SyntaxError" in done.stdout
    assert "error: the service goes on with the version before" in done.stdout


@needs_namespaces
def test_new_settings_need_a_restart(box: Box) -> None:
    box.program_does("systemctl", RUNS.replace("+1 hour", "-1 hour"))
    assert box.provision().returncode == 0
    box.calls()
    assert box.provision().returncode == 0
    assert "systemctl restart chp-gevent.service" in box.calls()


@needs_namespaces
def test_without_systemd_the_unit_is_installed_and_nothing_started(box: Box) -> None:
    (box.folder / "run/systemd/system").rmdir()
    done = box.provision()
    assert done.returncode == 0
    assert "systemd is not running here" in done.stdout
    assert [call for call in box.calls() if call.startswith("systemctl")] == []


def test_the_group_of_the_sockets_is_the_one_of_the_unit() -> None:
    lines = UNIT.read_text().splitlines()
    assert "Group=chp-gevent-sockets" in lines
    assert "UMask=0007" in lines
    assert "readonly group=chp-gevent-sockets" in SCRIPT.read_text().splitlines()
