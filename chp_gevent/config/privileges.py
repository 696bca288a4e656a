"""What a worker is not given because it has no use for it: the API's secrets.

It is no wall. A worker is a fork of the arbiter and runs as the same user: code of an attacker
in it can read the arbiter's memory as far as the system lets processes of one user do so
(``ptrace``), and what its own memory still has of the arbiter's. But nothing that a worker
does, shows or starts has the token by accident: WSGI middleware that prints its environment,
a program that it runs, ``/proc/PID/environ``.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import MutableMapping
from dataclasses import replace

from chp_gevent.config.options import SECRET_VARIABLES, Options


def without_secrets(options: Options) -> Options:
    """Return the options of a worker: nothing of the API's, nor of the store's."""
    shared = options.shared_store
    if shared is not None:
        shared = replace(shared, username=None, password=None, sentinel_password=None)
    return replace(options, auth_token=None, api_tls=None, shared_store=shared)


def forget_environment(copy: MutableMapping[str, str]) -> None:
    """Remove the secrets from the environment of this process, and from a ``copy`` of it.

    Overwrites them as well: ``/proc/PID/environ`` is the memory in which the kernel has put
    the environment when the program was started, whatever becomes of the variables.
    """
    getenv = ctypes.CDLL(None).getenv
    getenv.restype = ctypes.c_void_p
    for name in SECRET_VARIABLES:
        address = getenv(name.encode())
        if address is not None:
            ctypes.memset(address, 0, len(ctypes.string_at(address)))
        os.environ.pop(name, None)
        copy.pop(name, None)
