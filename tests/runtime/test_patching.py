"""What gevent's monkey patching is spared, and what it is not."""

from __future__ import annotations

from importlib import metadata

import pytest

from chp_gevent.runtime import patching
from chp_gevent.runtime.patching import plugins_read_once

GROUP = "console_scripts"
"""Some installed package has one of these: ours."""


def test_plugins_are_found_as_without_it() -> None:
    expected = metadata.entry_points(group=GROUP)
    with plugins_read_once():
        assert list(metadata.entry_points(group=GROUP)) == list(expected)
        assert not list(metadata.entry_points(group="no.such.group"))
    assert any(plugin.name == "chp-gevent" for plugin in expected)


def test_installed_packages_are_looked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    looks = 0
    distributions = metadata.distributions

    def counted() -> object:
        nonlocal looks
        looks += 1
        return distributions()

    monkeypatch.setattr(metadata, "distributions", counted)
    monkeypatch.setattr(patching, "_plugins", None)
    for _ in range(2):
        with plugins_read_once():
            for _ in range(5):
                metadata.entry_points(group=GROUP)
    assert looks == 1, "a child uses what the arbiter has read"
    metadata.entry_points(group=GROUP)
    assert looks == 2, "others look for themselves"


def test_an_error_leaves_nothing_replaced() -> None:
    look = metadata.entry_points
    with pytest.raises(OSError, match="inside"), plugins_read_once():
        raise OSError("inside")
    assert metadata.entry_points is look
