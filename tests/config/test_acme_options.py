"""Values of --acme-*, and what they need."""

from __future__ import annotations

import importlib.util

import pytest

from chp_gevent.cli import parse
from chp_gevent.config.acme_options import DIRECTORIES, default_storage, directory, domain
from chp_gevent.config.options import OptionError
from chp_gevent.master.resources import check_libraries

FLAGS = ["--acme-agree-tos", "--redirect-port", "8080", "--acme-domain"]


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("hub.example.org", "hub.example.org"),
        (" HUB.Example.org. ", "hub.example.org"),
        ("bücher.example", "xn--bcher-kva.example"),
        ("xn--bcher-kva.example", "xn--bcher-kva.example"),
        ("localhost", "localhost"),
        ("1.example", "1.example"),
    ],
)
def test_a_name_is_taken_in_its_form_for_dns(given: str, name: str) -> None:
    assert domain(given) == name


@pytest.mark.parametrize(
    "given",
    [
        *("*.a.test", "10.0.0.1", "::1", "[::1]", "a b", "a/b", "a:80", "-a.test", ".", "a..b"),
        *("http://a.test", "a" * 64, "ä" * 70, "a." * 130),
    ],
)
def test_what_is_no_name_is_refused(given: str) -> None:
    with pytest.raises(ValueError, match=r"^is "):
        domain(given)


def test_directories_have_short_names() -> None:
    assert directory("staging") == DIRECTORIES["staging"]
    assert directory("LetsEncrypt") == DIRECTORIES["letsencrypt"]
    assert directory("https://ca.internal:9000/acme/directory").startswith("https://ca.internal")


@pytest.mark.parametrize(
    "given", ["stagin", "http://ca/dir", "https://", "https://a b/", "ftp://a"]
)
def test_other_directories_are_refused(given: str) -> None:
    with pytest.raises(ValueError, match=r"neither one of letsencrypt, staging nor"):
        directory(given)


def test_the_storage_is_in_the_state_directory() -> None:
    assert default_storage({}, is_root=True) == "/var/lib/chp-gevent/acme"
    assert default_storage({"HOME": "/home/a"}, is_root=False) == (
        "/home/a/.local/state/chp-gevent/acme"
    )
    environ = {"HOME": "/home/a", "XDG_STATE_HOME": "/state"}
    assert default_storage(environ, is_root=False) == "/state/chp-gevent/acme"
    environ["STATE_DIRECTORY"] = "/var/lib/chp:/var/lib/other"
    assert default_storage(environ, is_root=True) == "/var/lib/chp/acme"


def test_names_are_asked_for_once_each_in_their_order() -> None:
    options = parse([*FLAGS, "b.test", "--acme-domain", "a.test", "--acme-domain", "B.test"], {})
    assert options.acme is not None
    assert options.acme.domains == ("b.test", "a.test")
    assert options.acme.directory == DIRECTORIES["letsencrypt"]
    assert options.tls is not None
    assert (options.tls.cert, options.tls.key) == (options.acme.certificate, options.acme.key)
    assert options.redirect is not None


def test_without_the_option_there_is_nothing_of_it() -> None:
    options = parse([], {})
    assert options.acme is None
    assert options.tls is None


def test_without_the_extra_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    options = parse([*FLAGS, "a.test"], {})
    check_libraries(options)
    real = importlib.util.find_spec
    monkeypatch.setattr(
        "chp_gevent.master.resources.find_spec",
        lambda name: None if name == "josepy" else real(name),
    )
    with pytest.raises(OptionError, match=r"pip install 'chp-gevent\[acme\]'$"):
        check_libraries(options)
    check_libraries(parse([], {}))
