"""What values of particular options mean. A `ValueError` says what is wrong, behind the value."""

from __future__ import annotations

import re
from ipaddress import IPv4Network, IPv6Network, ip_network

from chp_gevent.config.storage_options import engine_place, is_engine_url
from chp_gevent.routing.target_url import check_target_url

_LOG_LEVELS = {
    "debug": "debug",
    "info": "info",
    "warn": "warn",
    "error": "error",
    # names that CHP's logger takes without listing them
    "silly": "debug",
    "verbose": "info",
    "http": "info",
    "warning": "warn",
}

_CLASS_PATH = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)+")
_STATSD_PREFIX = re.compile(r"[^\s:|@]+")


def target_url(value: str) -> str:
    """Return the URL of a target as it stands."""
    check_target_url(value)
    return value


def networks(value: str) -> tuple[IPv4Network | IPv6Network, ...]:
    """Networks that are separated by commas; ``none`` is no network at all."""
    if value.strip().lower() == "none":
        return ()
    networks = []
    for item in value.split(","):
        try:
            networks.append(_plain_network(ip_network(item.strip())))
        except ValueError as error:
            raise ValueError(f"is not a list of IP addresses and networks: {error}") from None
    return tuple(networks)


def _plain_network(network: IPv4Network | IPv6Network) -> IPv4Network | IPv6Network:
    """Return a network of IPv4 addresses in IPv6's notation (``::ffff:…``) as one of IPv4."""
    first = getattr(network.network_address, "ipv4_mapped", None)
    if first is None or network.prefixlen < 96:
        return network
    return IPv4Network((first, network.prefixlen - 96))


def rewritten_protocol(value: str) -> str:
    """Return ``http`` or ``https``."""
    protocol = value.lower().removesuffix(":")
    if protocol not in ("http", "https"):
        raise ValueError("is neither http nor https")
    return protocol


def log_level(value: str) -> str:
    """Return the level that is meant, one of ours."""
    if value.lower() not in _LOG_LEVELS:
        raise ValueError("is not one of debug, info, warn, error")
    return _LOG_LEVELS[value.lower()]


def log_format(value: str) -> str:
    """Return the name of a format."""
    if value.lower() not in ("chp", "json"):
        raise ValueError("is not one of chp, json")
    return value.lower()


def storage_backend(value: str) -> str:
    """Return a URL of Redis, ``sqlite:PATH`` or the path of a class as it stands."""
    if is_engine_url(value):
        engine_place(value)
        return value
    kind, colon, path = value.partition(":")
    if colon and kind == "sqlite":
        if not path or "\0" in path:
            raise ValueError("names no file, as sqlite:/var/lib/chp-gevent/routes.sqlite does")
        return value
    if not _CLASS_PATH.fullmatch(value):
        raise ValueError(
            "is neither sqlite:PATH, redis://HOST:PORT, nor the path of a Python class, such as "
            "package.module.Class"
        )
    return value


def statsd_prefix(value: str) -> str:
    """Return a prefix as it stands."""
    if not _STATSD_PREFIX.fullmatch(value):
        raise ValueError("has a character that statsd gives a meaning to")
    return value
