"""An address that swallows connections: a listener whose queue is full, as if packets were lost."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from contextlib import contextmanager

FILLERS = 4


@contextmanager
def swallowing(address: tuple[str, int] | str) -> Iterator[socket.socket]:
    """Have an address (or a UNIX socket's path) neither accept nor refuse until the block ends.

    The listener is what the block gets: each ``accept`` makes room for one connection.
    """
    if isinstance(address, str):
        family = socket.AF_UNIX
    else:
        family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket(family))
        listener.bind(address)
        listener.listen(0)
        for _ in range(FILLERS):
            filler = stack.enter_context(socket.socket(family))
            filler.setblocking(False)
            with contextlib.suppress(OSError):
                filler.connect(listener.getsockname())
        yield listener
