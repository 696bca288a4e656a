"""Versions that can't take over, and what happens to the processes while one does."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.kit import processes
from tests.kit.peers import EchoTarget, RawTarget, wait_until
from tests.kit.peers.upgrades import echo, says_back, switched, switched_client
from tests.kit.server import CONSOLE_SCRIPT, Proxy
from tests.kit.versions import Edit, Installation

pytestmark = pytest.mark.ours

StartProxy = Callable[..., Proxy]

REFUSED = "error: not reloaded, the workers go on: "


@pytest.fixture
def installed(tmp_path: Path) -> Installation:
    return Installation(tmp_path)


@contextmanager
def untouched(proxy: Proxy, target: str) -> Iterator[None]:
    """See that tunnels, routes and processes are the same afterwards."""
    with RawTarget(switched(echo)) as sockets:
        proxy.api.add("/", target)
        proxy.api.add("/socket", sockets.url)
        with switched_client(proxy.client(), "/socket") as tunnel:
            before = set(proxy.tree())
            yield
            wait_until(lambda: set(proxy.tree()) == before, 10, "the processes are the same")
            assert says_back(tunnel, "still here")
        assert set(proxy.api.routes()) == {"/", "/socket"}
        assert proxy.get("/").status == 200


def added(line: str) -> Edit:
    return lambda text: f"{text}\n{line}\n"


def replaced(old: str, new: str) -> Edit:
    return lambda text: text.replace(old, new)


PREFLIGHT = "import os, signal, time\nif 'CHP_GEVENT_PREFLIGHT' in os.environ: "

BROKEN: dict[str, tuple[str, Edit, str]] = {
    "a syntax error": ("proxy/app.py", added("def ("), "SyntaxError: "),
    "a module that is missing": (
        "management/metrics.py",
        added("import no_such_module"),
        "ModuleNotFoundError: No module named 'no_such_module'",
    ),
    "an error in the command itself": ("cli.py", added("1 / 0"), "ZeroDivisionError: "),
    "another layout": (
        "shared/segment.py",
        replaced("LAYOUT: Final = 1", "LAYOUT: Final = 2"),
        "9.0 can't take over from 0.1.0, whose layout of shared memory is 1 and not 2: restart",
    ),
    "another format of the journal": (
        "shared/records.py",
        replaced("FORMAT: Final = 1", "FORMAT: Final = 2"),
        "9.0 can't take over from 0.1.0, whose format of the journal is 1 and not 2: restart",
    ),
    "another format of what is left": (
        "master/handover.py",
        replaced("FORMAT: Final = 1", "FORMAT: Final = 7"),
        "9.0 can't take over from 0.1.0, whose handover format is 1 and not 7: restart",
    ),
    "an option that is no more": (
        "config/table/timeouts.py",
        replaced('"--proxy-timeout"', '"--target-timeout"'),
        "unknown option '--proxy-timeout'",
    ),
    "no room for the check": (
        "cli.py",
        added(f"{PREFLIGHT}raise OSError(28, os.strerror(28))"),
        "OSError: [Errno 28] No space left on device",
    ),
    "a check that is killed": (
        "cli.py",
        added(f"{PREFLIGHT}os.kill(os.getpid(), signal.SIGKILL)"),
        "its check was ended by SIGKILL",
    ),
    "a check that is killed by a signal without a name": (
        "cli.py",
        added(f"{PREFLIGHT}os.kill(os.getpid(), signal.SIGRTMIN + 1)"),
        "its check was ended by signal ",
    ),
    "a check that says nothing": ("cli.py", added(f"{PREFLIGHT}os._exit(3)"), "its check ended wi"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_version_that_cannot_start_is_refused(
    start_proxy: StartProxy, installed: Installation, name: str
) -> None:
    module, edit, reason = BROKEN[name]
    with EchoTarget() as target:
        flags = ("--proxy-timeout", "30000", "--workers", "1")
        proxy = start_proxy(*flags, command=installed.command, workers=None)
        with untouched(proxy, target.url):
            installed.install("9.0", {module: edit})
            for _ in range(2):
                position = proxy.log_position()
                proxy.signal(signal.SIGUSR2)
                proxy.wait_for_log(re.escape(REFUSED + reason), 30, after=position)
        assert "Traceback" not in proxy.log()
        # It is not held against the next one.
        installed.install("9.1")
        proxy.signal(signal.SIGUSR2)
        proxy.wait_for_log("took over from version 0.1.0", 30)


def test_a_check_that_takes_too_long_is_ended(
    start_proxy: StartProxy, installed: Installation
) -> None:
    shorter = {"master/upgrade.py": replaced("TIMEOUT: Final = 60.0", "TIMEOUT: Final = 1.5")}
    installed.install("0.0.9", shorter)
    with EchoTarget() as target:
        proxy = start_proxy("--workers", "1", command=installed.command, workers=None)
        with untouched(proxy, target.url):
            installed.install("9.0", {"cli.py": added(f"{PREFLIGHT}time.sleep(100)")})
            proxy.signal(signal.SIGUSR2)
            proxy.wait_for_log("the check of the next version takes more than 1.5 s; ending it", 30)
            proxy.wait_for_log(REFUSED + "its check was ended by SIGKILL", 30)


def test_a_program_that_is_gone(start_proxy: StartProxy, tmp_path: Path) -> None:
    script = tmp_path / "chp-gevent"
    script.write_text(f"#!{sys.executable}\n{CONSOLE_SCRIPT[2]}\n")
    script.chmod(0o755)
    environment = {"PYTHONPATH": os.getcwd()}
    with EchoTarget() as target:
        proxy = start_proxy("--workers", "1", command=[str(script)], workers=None, env=environment)
        with untouched(proxy, target.url):
            script.write_text("#!/no/such/python\n")
            proxy.signal(signal.SIGUSR2)
            proxy.wait_for_log(f"{REFUSED}cannot start {script}: No such file or directory", 30)
            script.unlink()
            position = proxy.log_position()
            proxy.signal(signal.SIGUSR2)
            # What is no script any more is what the interpreter was told to run.
            proxy.wait_for_log(f"{REFUSED}.*No such file or directory", 30, after=position)


def test_workers_that_do_not_come_up(start_proxy: StartProxy, installed: Installation) -> None:
    with EchoTarget() as target:
        proxy = start_proxy("--workers", "1", command=installed.command, workers=None)
        proxy.api.add("/", target.url)
        (old,) = proxy.worker_pids()
        shorter = replaced("TIMEOUT: Final = 20.0", "TIMEOUT: Final = 2.0")
        failing = replaced("self.journal.give_up_writing()", "raise OSError('not today')")
        installed.install("9.0", {"proxy/worker.py": failing, "master/renewal.py": shorter})
        proxy.signal(signal.SIGUSR2)
        proxy.wait_for_log("took over from version 0.1.0", 30)
        proxy.wait_for_log("worker could not start: OSError: not today", 30)
        proxy.wait_for_log("not reloaded, the old workers go on: new ones did not come up", 30)
        assert proxy.get("/").status == 200
        assert old in proxy.tree()
        installed.install("9.1")
        position = proxy.log_position()
        proxy.signal(signal.SIGUSR2)
        proxy.wait_for_log("reloaded: 1 new workers serve", 30, after=position)
        assert proxy.get("/").status == 200


# -- what happens on the way

# The new version stands still before it has handlers of signals.
SLOW_BOOT = {
    "master/preloading.py": replaced(
        "    patch_before_loading()\n",
        "    import os, time\n"
        "    if 'CHP_GEVENT_PREFLIGHT' not in os.environ: print('loading', flush=True); "
        "time.sleep(1.5)\n"
        "    patch_before_loading()\n",
    )
}
SLOW_CHECK = {"cli.py": added(f"{PREFLIGHT}time.sleep(1.5)")}


def checking(proxy: Proxy) -> None:
    """Return when there is the process that checks the new version."""
    wait_until(lambda: len(proxy.tree()) == 4, 10, "a process that checks")


def loading(proxy: Proxy) -> None:
    """Return when the new version has begun to load its code, and has no handlers yet."""
    proxy.wait_for_log("^loading$", 30)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
@pytest.mark.parametrize(
    ("slow", "wait_for_it"),
    [
        pytest.param(SLOW_CHECK, checking, id="check"),
        pytest.param(SLOW_BOOT, loading, id="loading"),
    ],
)
def test_a_signal_to_stop_is_obeyed_on_the_way_to_a_new_version(
    start_proxy: StartProxy,
    installed: Installation,
    slow: Mapping[str, Edit],
    wait_for_it: Callable[[Proxy], None],
    number: signal.Signals,
) -> None:
    proxy = start_proxy("--workers", "1", command=installed.command, workers=None)
    installed.install("9.0", slow)
    proxy.signal(signal.SIGUSR2)
    wait_for_it(proxy)
    proxy.signal(number)
    assert proxy.wait() == 0
    assert REFUSED not in proxy.log(), "nobody has refused anything"
    proxy.assert_nothing_left()


@pytest.mark.parametrize("role", ["worker", "management process"])
def test_who_dies_while_the_new_version_loads_is_replaced(
    start_proxy: StartProxy, installed: Installation, role: str
) -> None:
    with EchoTarget() as target:
        proxy = start_proxy("--workers", "2", command=installed.command, workers=None)
        proxy.api.add("/", target.url)
        victim = proxy.management_pid() if role != "worker" else max(proxy.worker_pids())
        installed.install("9.0", SLOW_BOOT)
        proxy.signal(signal.SIGUSR2)
        loading(proxy)
        os.kill(victim, signal.SIGKILL)
        proxy.wait_for_log("reloaded: 2 new workers serve", 30)
        wait_until(lambda: len(proxy.tree()) == 4, 10, "four processes")
        assert set(proxy.api.routes()) == {"/"}
        assert proxy.get("/").status == 200


def test_a_new_worker_that_dies_is_replaced(
    start_proxy: StartProxy, installed: Installation, tmp_path: Path
) -> None:
    with EchoTarget() as target:
        proxy = start_proxy("--workers", "1", command=installed.command, workers=None)
        proxy.api.add("/", target.url)
        once = (
            "import os, signal\n"
            f"        try: os.mkdir({str(tmp_path / 'once')!r})\n"
            "        except FileExistsError: pass\n"
            "        else: os.kill(os.getpid(), signal.SIGKILL)\n"
            "        self.journal.give_up_writing()"
        )
        edit = replaced("self.journal.give_up_writing()", once)
        installed.install("9.0", {"proxy/worker.py": edit})
        proxy.signal(signal.SIGUSR2)
        proxy.wait_for_log("was sent SIGKILL", 30)
        proxy.wait_for_log("reloaded: 1 new workers serve", 30)
        assert proxy.get("/").status == 200


def test_signals_that_come_together_end_in_the_installed_version(
    start_proxy: StartProxy, installed: Installation
) -> None:
    proxy = start_proxy("--workers", "1", command=installed.command, workers=None)
    installed.install("9.0", SLOW_BOOT)
    for number in (signal.SIGUSR2, signal.SIGHUP, signal.SIGTTIN):
        proxy.signal(number)
    loading(proxy)
    proxy.signal(signal.SIGUSR2)
    proxy.wait_for_log("took over from version 9.0", 30)
    wait_until(lambda: len(proxy.tree()) == 4, 30, "two workers")
    wait_until(proxy.is_ready, 10, "all is well")


def test_what_breaks_behind_the_check_is_waited_for(
    start_proxy: StartProxy, installed: Installation, tmp_path: Path
) -> None:
    folder = tmp_path / "errors"
    folder.mkdir()
    flags = ("--error-path", str(folder), "--workers", "1")
    proxy = start_proxy(*flags, command=installed.command, workers=None)
    begin = "    pauses = Backoff()\n"
    slowly = "    print('loading', flush=True); __import__('time').sleep(1)\n"
    installed.install("9.0", {"master/loading.py": replaced(begin, begin + slowly)})
    proxy.signal(signal.SIGUSR2)
    loading(proxy)
    folder.rmdir()
    proxy.wait_for_log("error: cannot take over yet: --error-path: .* is not a folder; trying", 30)
    assert proxy.get("/_chp_healthz").status == 200
    folder.mkdir()
    proxy.wait_for_log("reloaded: 1 new workers serve", 30)


def vanishing(package: Path) -> dict[str, Edit]:
    """Have only the beginning of a version be on the disk when its check has been passed."""
    end = "    sys.exit(found is not None)\n"
    act = f"    os.rename({str(package)!r}, {f'{package}.away'!r}); os.mkdir({str(package)!r})\n"
    act += f"    open({str(package / '__init__.py')!r}, 'w').write('import chp_gevent.nothing')\n"
    return {"master/preflight.py": replaced(end, f"{act}{end}")}


def come_back(package: Path) -> None:
    shutil.rmtree(package)
    package.with_name(f"{package.name}.away").rename(package)


@pytest.mark.parametrize("way", ["-c", "script", "-m"])
def test_a_version_that_is_not_there_when_it_takes_over_is_waited_for(
    start_proxy: StartProxy, installed: Installation, tmp_path: Path, way: str
) -> None:
    module = [sys.executable, "-W", "error", "-m", "chp_gevent"]
    there = ["sh", "-c", 'cd "$0" && exec "$@"', str(installed.package.parent)]
    commands = {"-c": installed.command, "-m": there + module}
    script = tmp_path / "chp-gevent"
    script.write_text(f"#!{sys.executable} -s\n{installed.command[2]}\n")
    script.chmod(0o755)
    commands["script"] = [str(script)]
    proxy = start_proxy("--workers", "1", command=commands[way], workers=None)
    installed.install("9.0", vanishing(installed.package))
    proxy.signal(signal.SIGUSR2)
    proxy.wait_for_log(
        "^error: cannot take over yet: ModuleNotFoundError: No module named 'chp_gevent.nothing'"
        "; trying again in 1 s",
        30,
    )
    assert proxy.get("/_chp_healthz").status == 200
    come_back(installed.package)
    proxy.wait_for_log("took over from version", 30)
    proxy.wait_for_log("reloaded: 1 new workers serve", 30)
    # The next one begins with the command that this one was given.
    installed.install("10.0")
    position = proxy.log_position()
    proxy.signal(signal.SIGUSR2)
    proxy.wait_for_log("took over from version 9.0", 30, after=position)
    proxy.wait_for_log("reloaded: 1 new workers serve", 30, after=position)
    assert "first-steps" not in " ".join(processes.descriptors_by_kind(proxy.pid))


def test_a_server_can_be_stopped_while_its_next_version_is_not_there(
    start_proxy: StartProxy, installed: Installation
) -> None:
    proxy = start_proxy("--workers", "1", command=installed.command, workers=None)
    installed.install("9.0", vanishing(installed.package))
    proxy.signal(signal.SIGUSR2)
    proxy.wait_for_log("^error: cannot take over yet", 30)
    proxy.signal(signal.SIGTERM)
    assert proxy.wait() == 1
    proxy.assert_nothing_left()


def test_an_arbiter_that_is_killed_while_it_loads_takes_all_with_it(
    start_proxy: StartProxy, installed: Installation
) -> None:
    proxy = start_proxy("--workers", "1", command=installed.command, workers=None)
    installed.install("9.0", SLOW_BOOT)
    proxy.signal(signal.SIGUSR2)
    loading(proxy)
    proxy.signal(signal.SIGKILL)
    proxy.wait()
    proxy.assert_nothing_left()


# -- the same by hand


def checked(*flags: str, program: list[str] | None = None) -> subprocess.CompletedProcess[str]:
    command = [*(program or CONSOLE_SCRIPT), "check", *flags]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_check_says_that_it_could_start() -> None:
    result = checked("--port", "1", "--no-such-option-value", "x")
    assert result.returncode == 1
    assert "unknown option" in result.stderr
    result = checked("--port", "1")
    assert (result.returncode, result.stderr) == (0, "")
    assert re.fullmatch(r"chp-gevent \S+ can start with these options\.\n", result.stdout)


@pytest.mark.parametrize(
    ("flags", "error"),
    [
        (("--ssl-key", "/none", "--ssl-cert", "/none"), "--ssl-cert: '/none' can't be read: "),
        (("--pid-file", "/no/such/folder/pid"), "--pid-file: cannot write into the folder of "),
        (("--error-path", "/none"), "--error-path: '/none' is not a folder"),
        (("--storage-backend", "no.such.Store"), "--storage-backend: 'no.such.Store' can't be im"),
    ],
)
def test_check_says_why_it_could_not(flags: tuple[str, ...], error: str) -> None:
    result = checked(*flags)
    assert result.returncode == 1
    assert result.stderr.startswith(f"error: {error}")
    assert len(result.stderr.splitlines()) == 1
    assert result.stdout == ""


def test_check_finds_a_module_that_is_broken(installed: Installation) -> None:
    installed.install("9.0", {"proxy/app.py": added("def (")})
    result = checked(program=installed.command)
    assert result.returncode == 1
    assert result.stderr.startswith("error: SyntaxError: ")


def test_a_handover_that_is_none_is_one_line() -> None:
    for value in ("x", "999", "0"):
        environment = {**os.environ, "CHP_GEVENT_HANDOVER": value}
        result = subprocess.run(
            CONSOLE_SCRIPT,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        assert result.returncode == 1
        assert result.stderr.startswith("error: CHP_GEVENT_HANDOVER is of no use: ")
