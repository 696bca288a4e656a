"""Who is trusted."""

from __future__ import annotations

from ipaddress import ip_network

import pytest

from chp_gevent.http.peer import is_trusted, peer_address


@pytest.mark.parametrize(
    ("address", "networks", "trusted"),
    [
        ("192.0.2.1", None, True),
        ("", ["10.0.0.0/8"], True),
        ("10.1.2.3", ["10.0.0.0/8"], True),
        ("11.1.2.3", ["10.0.0.0/8"], False),
        ("11.1.2.3", ["10.0.0.0/8", "11.0.0.0/8"], True),
        ("10.1.2.3", [], False),
        ("::1", ["::1/128"], True),
        ("::2", ["::1/128"], False),
        ("::10.1.2.3", ["10.0.0.0/8"], False),
        ("fe80::1%eth0", ["fe80::/10"], True),
        ("10.1.2.3", ["::/0"], False),
        ("::1", ["0.0.0.0/0"], False),
    ],
)
def test_a_peer_is_trusted_by_its_network(
    address: str, networks: list[str] | None, trusted: bool
) -> None:
    known = None if networks is None else [ip_network(network) for network in networks]
    assert is_trusted(address, known) is trusted


@pytest.mark.parametrize(
    ("address", "plain"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("::1", "::1"),
        ("::ffff:1", "::ffff:1"),
        ("::ffff:0:192.0.2.1", "::ffff:0:192.0.2.1"),
        ("fe80::1%eth0.1", "fe80::1%eth0.1"),
        ("", ""),
    ],
)
def test_an_ipv4_client_has_an_ipv4_address_on_every_socket(address: str, plain: str) -> None:
    assert peer_address(address) == plain
