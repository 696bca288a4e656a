"""A server with a deliberate mistake: python -m scripts.lib.replicas.mistakes NAME [FLAGS]

To see that tests and scripts/replicas-chaos find it. The package itself knows nothing of this.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Sequence


def no_ack() -> None:
    """A change is confirmed without waiting for other servers."""
    from chp_gevent.stores.redis.changes import Changes

    Changes._missing = lambda *_: set()  # type: ignore[method-assign]


def no_deadline() -> None:
    """A change whose sender has given up may be made later."""
    from chp_gevent.stores.redis import changes

    changes._DEADLINE = 1e6  # type: ignore[misc]


def long_current() -> None:
    """A server calls itself current long after others have gone on without it."""
    from chp_gevent.stores.redis.replica import Replica

    Replica.current_for = property(lambda _: 60.0)  # type: ignore[assignment,method-assign]


def no_fence() -> None:
    """After a loss, changes are confirmed before all servers can have noticed it."""
    _edit("'fence', text(now + tonumber(ARGV[12]))", "'fence', '0'")


def no_run_id() -> None:
    """Another process of the engine's is taken for the one before."""
    _edit("if m[2] ~= ARGV[2] then return 'NEWSERVER', m end", "")


def _edit(old: str, new: str) -> None:
    """Edit all scripts, before anybody has loaded them."""
    import hashlib

    from chp_gevent.stores.redis import scripts

    assert any(old in text for text in scripts.TEXTS.values()), f"no script has {old!r}"
    for name, text in scripts.TEXTS.items():
        scripts.TEXTS[name] = text.replace(old, new)
        scripts.DIGESTS[name] = hashlib.sha1(scripts.TEXTS[name].encode()).hexdigest()


MISTAKES: dict[str, Callable[[], None]] = {
    each.__name__.replace("_", "-"): each
    for each in (no_ack, no_deadline, long_current, no_fence, no_run_id)
}


def command(name: str) -> list[str]:
    """Return the command of a server that makes a mistake."""
    return [sys.executable, "-m", __name__, name]


def run(name: str, flags: Sequence[str]) -> None:
    """Run a server that makes a mistake, from when its code is loaded."""
    from chp_gevent.cli import main
    from chp_gevent.master import loading
    from chp_gevent.master.preloading import load_code

    def load(extras: Collection[str]) -> None:
        load_code(extras)
        MISTAKES[name]()

    loading.load_code = load  # type: ignore[attr-defined]
    main(flags)


if __name__ == "__main__":
    run(sys.argv[1], sys.argv[2:])
