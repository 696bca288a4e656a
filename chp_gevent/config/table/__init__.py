"""All options, in the order in which they are shown: a module for each section."""

from __future__ import annotations

from types import ModuleType
from typing import Any, Final, NamedTuple

from chp_gevent.config.option import Option
from chp_gevent.config.table import (
    acme,
    api,
    client_tls,
    general,
    listening,
    metrics,
    processes,
    requests,
    storage,
    targets,
    timeouts,
)


class Section(NamedTuple):
    """Options that belong together, under a title."""

    title: str
    options: tuple[Option[Any], ...]


def _section(module: ModuleType) -> Section:
    values = vars(module).values()
    return Section(module.TITLE, tuple(each for each in values if isinstance(each, Option)))


SECTIONS: Final = tuple(
    map(
        _section,
        (
            general,
            listening,
            client_tls,
            acme,
            api,
            storage,
            targets,
            requests,
            timeouts,
            metrics,
            processes,
        ),
    )
)
