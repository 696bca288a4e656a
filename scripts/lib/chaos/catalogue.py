"""The disturbances by name: how often they come, and what they need."""

from __future__ import annotations

from dataclasses import dataclass

# Those of a group come one after the other; of this one, at any time.
AT_ONCE = "at once"
# They take away what the others of them need, too.
SURROUNDINGS = "surroundings"


@dataclass(frozen=True)
class Disturbance:
    """One of them.

    Attributes:
        name: what ``--only`` takes; the method has it with underscores.
        weight: how often it comes, beside the others.
        group: of which only one goes on at a time.
        tls: whether it needs a server that speaks TLS.
    """

    name: str
    weight: int
    group: str = AT_ONCE
    tls: bool = False

    @property
    def method(self) -> str:
        """The method that does it, of ``Disturber`` or of ``Around``."""
        return self.name.replace("-", "_")


CATALOGUE = (
    Disturbance("kill-worker", 4),
    Disturbance("stop-worker", 3),
    Disturbance("kill-management", 3),
    Disturbance("stop-management", 2),
    Disturbance("reload", 2),
    Disturbance("kill-target", 3),
    Disturbance("reset-target", 4),
    Disturbance("stop-target", 2),
    Disturbance("certificate-at-reload", 2, SURROUNDINGS, tls=True),
    Disturbance("certificate-at-death", 2, SURROUNDINGS, tls=True),
    Disturbance("package", 2, SURROUNDINGS),
    Disturbance("fork", 2, SURROUNDINGS),
    Disturbance("shm", 2, SURROUNDINGS),
    Disturbance("unread-log", 1, SURROUNDINGS),
    Disturbance("tiny-chunks", 2, "tiny-chunks"),
    Disturbance("silent-api", 1, "silent-api"),
)
NAMES = tuple(disturbance.name for disturbance in CATALOGUE)


def suitable(only: tuple[str, ...], *, tls: bool) -> list[str]:
    """Return those of the names that can be done to a server with or without TLS."""
    return [d.name for d in CATALOGUE if d.name in only and (tls or not d.tls)]


def settings(only: tuple[str, ...]) -> list[bool]:
    """Return with and without TLS, or the one of them that is about these disturbances."""
    return [tls for tls in (False, True) if _is_about(only, tls=tls)]


def _is_about(only: tuple[str, ...], *, tls: bool) -> bool:
    needs = {d.tls for d in CATALOGUE if d.name in only}
    return tls in needs
