"""Which hosts are addresses, and in which order those of a name are tried."""

from __future__ import annotations

import errno
import socket

import pytest

from chp_gevent.names.addresses import Address, WorkingAddresses, interleaved, literal_address

LOOPBACK = socket.if_nameindex()[0]


def v4(number: int) -> Address:
    """An IPv4 address."""
    return Address(socket.AF_INET, f"127.0.0.{number}")


def v6(number: int) -> Address:
    """An IPv6 address."""
    return Address(socket.AF_INET6, f"::{number}")


@pytest.mark.parametrize("host", ["localhost", "a.example", "1a", "1.2.3.4.5", "256.1.1.1", "..."])
def test_names_and_what_looks_like_an_address_are_looked_up(host: str) -> None:
    assert literal_address(host) is None


@pytest.mark.parametrize(("host", "same_as"), [("127.0.0.1", "127.0.0.1"), ("127.1", "127.0.0.1")])
def test_ipv4_addresses_are_taken_as_they_are(host: str, same_as: str) -> None:
    assert literal_address(host) == Address(socket.AF_INET, same_as)


@pytest.mark.parametrize(
    ("host", "scope"),
    [("fe80::1", 0), (f"fe80::1%{LOOPBACK[1]}", LOOPBACK[0]), ("fe80::1%4711", 4711)],
)
def test_an_ipv6_address_may_name_its_interface_or_number_it(host: str, scope: int) -> None:
    address = literal_address(host)
    assert address == Address(socket.AF_INET6, "fe80::1", scope)
    assert address.with_port(80) == ("fe80::1", 80, 0, scope)


@pytest.mark.parametrize("zone", ["nowhere0", "0", "9" * 20, "²"])
def test_an_interface_that_is_not_there_is_an_error(zone: str) -> None:
    with pytest.raises(OSError, match="no network interface") as caught:
        literal_address(f"fe80::1%{zone}")
    assert caught.value.errno == errno.ENODEV


@pytest.mark.parametrize(
    ("found", "order"),
    [
        ([v4(1)], [v4(1)]),
        ([v6(1), v6(2), v4(1)], [v6(1), v4(1), v6(2)]),
        ([v6(1), v6(2), v4(1), v4(2)], [v6(1), v4(1), v6(2), v4(2)]),
        ([v4(1), v4(2), v4(3), v6(1)], [v4(1), v6(1), v4(2), v4(3)]),
        ([v4(2), v4(1)], [v4(2), v4(1)]),
    ],
)
def test_families_take_turns_and_keep_the_order_of_the_system(
    found: list[Address], order: list[Address]
) -> None:
    assert interleaved(found) == order


class TestWorkingAddresses:
    """What is remembered of services with several addresses."""

    FOUND = (v6(1), v6(2), v4(1))

    def test_the_address_that_worked_comes_first_next_time(self) -> None:
        working = WorkingAddresses(600, 10)
        order = working.in_order("a", self.FOUND, 0)
        assert order == [v6(1), v4(1), v6(2)]
        working.note("a", order, v4(1), 0)
        assert working.in_order("a", self.FOUND, 1) == [v4(1), v6(1), v6(2)]
        assert working.in_order("b", self.FOUND, 1) == order

    def test_nothing_is_kept_while_the_first_address_works(self) -> None:
        working = WorkingAddresses(600, 10)
        working.note("a", working.in_order("a", self.FOUND, 0), v6(1), 0)
        assert len(working) == 0

    def test_another_one_takes_its_place_when_it_fails(self) -> None:
        working = WorkingAddresses(600, 10)
        working.note("a", working.in_order("a", self.FOUND, 0), v4(1), 0)
        working.note("a", working.in_order("a", self.FOUND, 1), v6(2), 1)
        assert working.in_order("a", self.FOUND, 2) == [v6(2), v6(1), v4(1)]

    def test_it_is_forgotten_when_told_so_or_when_the_name_has_it_no_longer(self) -> None:
        working = WorkingAddresses(600, 10)
        for service in "ab":
            working.note(service, working.in_order(service, self.FOUND, 0), v4(1), 0)
        working.forget("a")
        assert working.in_order("a", self.FOUND, 0)[0] == v6(1)
        assert working.in_order("b", (v6(1), v4(2)), 0) == [v6(1), v4(2)]
        assert len(working) == 0

    def test_the_order_of_the_system_is_tried_again_after_a_time(self) -> None:
        working = WorkingAddresses(600, 10)
        working.note("a", working.in_order("a", self.FOUND, 0), v4(1), 0)
        assert working.in_order("a", self.FOUND, 599)[0] == v4(1)
        assert working.in_order("a", self.FOUND, 600)[0] == v6(1)

    def test_the_oldest_makes_room(self) -> None:
        working = WorkingAddresses(600, 2)
        for service in "abc":
            working.note(service, working.in_order(service, self.FOUND, 0), v4(1), 0)
        assert len(working) == 2
        assert working.in_order("a", self.FOUND, 0)[0] == v6(1)
        assert working.in_order("c", self.FOUND, 0)[0] == v4(1)
