"""The command line as a user meets it: what is taken, what is refused, and with which words."""

from __future__ import annotations

import re
import subprocess
import sys
import types
from pathlib import Path

import pytest
from docopt import docopt

import chp_gevent.config
from chp_gevent import __version__
from chp_gevent.cli import USAGE, main, parse
from chp_gevent.config.options import OptionError, Options, TcpAddress, UnixAddress
from chp_gevent.config.table import SECTIONS
from chp_gevent.config.usage import CHECK, defaults, page_table

# `configurable-http-proxy --help` of CHP 5.3.0
CHP_OPTIONS = """
    --ip --port --socket --ssl-key --ssl-cert --ssl-ca --ssl-request-cert
    --ssl-reject-unauthorized --ssl-protocol --ssl-ciphers --ssl-allow-rc4 --ssl-dhparam
    --api-ip --api-port --api-socket --api-ssl-key --api-ssl-cert --api-ssl-ca
    --api-ssl-request-cert --api-ssl-reject-unauthorized --client-ssl-key --client-ssl-cert
    --client-ssl-ca --client-ssl-request-cert --client-ssl-reject-unauthorized --default-target
    --error-target --error-path --redirect-port --redirect-to --pid-file --no-x-forward
    --no-prepend-path --no-include-prefix --auto-rewrite --change-origin --protocol-rewrite
    --custom-header --insecure --host-routing --metrics-ip --metrics-port --metrics-socket
    --log-level --timeout --proxy-timeout --storage-backend --keep-alive-timeout
""".split()
STATSD_OPTIONS = "--statsd-host --statsd-port --statsd-prefix".split()


OPTIONS_PAGE = Path(__file__).parent.parent / "docs" / "options.md"
CONFIG = Path(chp_gevent.config.__path__[0])


def run_cli(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command as its own process; for what ends before a server starts."""
    command = "from chp_gevent.cli import main; main()"
    return subprocess.run(
        [sys.executable, "-c", command, *arguments], capture_output=True, text=True, timeout=60
    )


def refusal(*arguments: str) -> str:
    """Parse arguments that must be refused, and return why."""
    with pytest.raises(OptionError) as caught:
        parse(arguments, {})
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_help_shows_every_option(flag: str) -> None:
    result = run_cli("--port", "1", flag, "--unknown")
    assert result.returncode == 0
    assert result.stderr == ""
    shown = set(re.findall(r"^ +(--[a-z0-9-]+)", result.stdout, re.MULTILINE))
    assert shown >= {*CHP_OPTIONS, *STATSD_OPTIONS, "--workers", "--drain-timeout"}


@pytest.mark.parametrize("flag", ["-V", "--version"])
def test_version_is_that_of_the_package(flag: str) -> None:
    result = run_cli(flag)
    assert (result.returncode, result.stdout) == (0, f"{__version__}\n")


def test_the_usage_text_fits_a_terminal() -> None:
    assert max(map(len, USAGE.splitlines())) <= 100


def test_docopt_finds_the_defaults_of_the_table() -> None:
    assert {CHECK: False, **defaults()} == dict(docopt(USAGE, argv=[]))


def test_the_documentation_has_every_option_with_its_default() -> None:
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in OPTIONS_PAGE.read_text(encoding="utf-8").splitlines()
        if line.startswith("| `-")
    ]
    documented = {re.findall(r"--[a-z0-9-]+", row[0])[0]: row[1].strip("`") for row in rows}
    in_usage = {
        re.findall(r"--[a-z0-9-]+", text)[0]: "".join(re.findall(r"\[default: (.*)\]", text))
        for text in re.split(r"\n  (?=-)", USAGE)[1:]
    }
    assert documented.keys() == in_usage.keys()
    assert len(rows) == len(documented)
    defaults = {flag: default for flag, default in in_usage.items() if default}
    assert {flag: documented[flag] for flag in defaults} == defaults


def test_the_table_of_the_documentation_is_current() -> None:
    """It is written by scripts/options-page."""
    assert f"\n{page_table()}\n" in OPTIONS_PAGE.read_text(encoding="utf-8")


entry = re.compile(r'^([A-Z0-9_]+) = Option\(\s+"(\S+)"', re.MULTILINE)


def test_every_option_is_in_the_table_once_and_is_used() -> None:
    table = [option for section in SECTIONS for option in section.options]
    flags = [option.flag for option in table]
    assert len(flags) == len(set(flags)) > 70
    sources = "".join(path.read_text("utf-8") for path in CONFIG.glob("*.py"))
    names = {
        f"{module.stem}.{name}": flag
        for module in (CONFIG / "table").glob("*.py")
        for name, flag in entry.findall(module.read_text("utf-8"))
    }
    assert set(names.values()) == set(flags)
    unused = {flag for name, flag in names.items() if not re.search(rf"\b{name}\b", sources)}
    # Those that end the program, those of both TLS servers, and those without effect, as in CHP.
    assert {flag for flag in unused if "ssl" not in flag} == {"--help", "--version"}


def test_a_line_of_the_usage_text_that_begins_with_a_dash_is_an_option() -> None:
    """docopt would take it for one."""
    begun = re.findall(r"^ *(-[^ ,]*)", USAGE, re.MULTILINE)
    assert begun == [
        option.alias or option.flag for section in SECTIONS for option in section.options
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--nonsense"], "unknown option '--nonsense'; see --help"),
        (["--nonsense=1"], "unknown option '--nonsense=1'; see --help"),
        (["--prot", "1"], "unknown option '--prot' (did you mean --port?); see --help"),
        (["--default-targe", "x"], "did you mean --default-target?"),
        (["--x-forward"], "did you mean --no-x-forward?"),
        (["-p", "8000"], "unknown option '-p'; see --help"),
        (["-Vh"], "unknown option '-Vh'"),
        (["--port"], "option '--port' argument missing; see --help"),
        (["--insecure", "--ip"], "option '--ip' argument missing; see --help"),
        (["--custom-header"], "option '--custom-header' argument missing"),
        (["--insecure=1"], "option '--insecure' takes no value: '--insecure=1'; see --help"),
        (["8000"], "too many arguments: '8000'; see --help"),
        (["-"], "too many arguments: '-'"),
        (["--", "--port"], "too many arguments: '--port'"),
        (["--port", "80", "90"], "too many arguments: '90'"),
    ],
)
def test_mistakes_are_told_in_one_line(arguments: list[str], message: str) -> None:
    assert message in refusal(*arguments)


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--nonsense"], "error: unknown option '--nonsense'; see --help\n"),
        (["--port", "x"], "error: --port: 'x' is not a whole number from 0 to 65535\n"),
        (["--custom-header", "a b"], "error: A colon was expected in custom header: a b\n"),
        (
            ["--redirect-http"],
            "error: --redirect-http: needs --trusted-proxies, which says whose X-Forwarded-Proto "
            "counts\n",
        ),
        (
            ["--redirect-port", "80"],
            "error: HTTPS redirection specified but certificates not provided.\n",
        ),
    ],
)
def test_a_refused_command_line_exits_with_1_and_one_line_on_stderr(
    arguments: list[str], line: str
) -> None:
    result = run_cli(*arguments)
    assert (result.returncode, result.stdout, result.stderr) == (1, "", line)


def test_values_follow_a_space_or_an_equals_sign() -> None:
    assert parse(["--port", "81", "--ip", "127.0.0.1"], {}) == parse(
        ["--port=81", "--ip=127.0.0.1"], {}
    )


@pytest.mark.parametrize(
    "arguments", [["--custom-header", "x-a: --b=c"], ["--custom-header=x-a: --b=c"]]
)
def test_a_value_may_contain_anything(arguments: list[str]) -> None:
    assert parse(arguments, {}).proxy.custom_headers == (("x-a", "--b=c"),)


def test_an_option_takes_the_next_argument_even_if_it_looks_like_an_option() -> None:
    assert "'--insecure' is not" in refusal("--port", "--insecure")
    assert parse(["--pid-file", "--help"], {}).pid_file == "--help"


def test_the_last_one_of_repeated_options_counts() -> None:
    # JupyterHub appends its own --log-level to a command that may have one
    assert parse(["--log-level=debug", "--port=1", "--log-level", "warn"], {}).log_level == "warn"
    assert parse(["--insecure", "--insecure"], {}).proxy.client_tls.verify is False


def test_custom_headers_may_be_repeated_anywhere() -> None:
    options = parse(["--custom-header", "a: 1", "--port=1", "--custom-header=b:2"], {})
    assert options.proxy.custom_headers == (("a", "1"), ("b", "2"))


def test_the_end_of_options_may_be_marked() -> None:
    assert parse(["--port", "81", "--"], {}).listen == TcpAddress("", 81)


def test_jupyterhub_s_command_line_is_understood() -> None:
    options = parse(
        [
            *("--ip", "", "--port", "8000", "--api-ip", "127.0.0.1", "--api-port", "8001"),
            *("--error-target", "http://127.0.0.1:8081/hub/error", "--log-level", "info"),
            *("--host-routing", "--ssl-key", "k", "--ssl-cert", "c"),
            *("--api-ssl-key", "ak", "--api-ssl-cert", "ac", "--api-ssl-ca", "aca"),
            *("--api-ssl-request-cert", "--api-ssl-reject-unauthorized"),
            *("--client-ssl-key", "ck", "--client-ssl-cert", "cc", "--client-ssl-ca", "cca"),
            *("--client-ssl-request-cert", "--client-ssl-reject-unauthorized"),
        ],
        {"CONFIGPROXY_AUTH_TOKEN": "secret"},
    )
    assert options.listen == TcpAddress("", 8000)
    assert options.api == TcpAddress("127.0.0.1", 8001)
    assert options.notices == ()


def test_jupyterhub_s_command_line_with_unix_sockets_is_understood() -> None:
    error_target = "http+unix://%2Frun%2Fhub.sock/hub/error"
    options = parse(
        [*("--socket", "/run/p"), *("--api-socket", "/run/a"), "--error-target", error_target], {}
    )
    assert (options.listen, options.api) == (UnixAddress("/run/p"), UnixAddress("/run/a"))
    assert options.proxy.error_target == error_target


def test_secrets_come_from_the_process_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONFIGPROXY_AUTH_TOKEN", "secret")
    assert parse([]).auth_token == "secret"


def test_main_runs_the_server_with_the_options(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[Options] = []
    server = types.ModuleType("chp_gevent.master.gunicorn_app")
    monkeypatch.setattr(server, "run", started.append, raising=False)
    monkeypatch.setitem(sys.modules, "chp_gevent.master.gunicorn_app", server)
    monkeypatch.setattr(sys, "argv", ["chp-gevent", "--port", "81"])
    main()
    main(["--port", "82"])
    assert [options.listen for options in started] == [TcpAddress("", 81), TcpAddress("", 82)]


def test_main_tells_in_one_line_why_the_server_can_not_be_started(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def run(_: Options) -> None:
        raise OptionError("--port: 80 is in use")

    server = types.ModuleType("chp_gevent.master.gunicorn_app")
    monkeypatch.setattr(server, "run", run, raising=False)
    monkeypatch.setitem(sys.modules, "chp_gevent.master.gunicorn_app", server)
    with pytest.raises(SystemExit) as caught:
        main([])
    assert caught.value.code == "error: --port: 80 is in use"


def test_parsing_loads_neither_gunicorn_nor_ssl() -> None:
    script = (
        "import sys; before = set(sys.modules); from chp_gevent.cli import parse;"
        "parse(['--port=1']); loaded = set(sys.modules) - before;"
        "print([m for m in ('gunicorn', 'gevent', 'ssl', 'urllib3') if m in loaded])"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert result.stdout == "[]\n"
