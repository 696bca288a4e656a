"""Parts of libraries that are used here though nobody has promised them: docs/architecture.md.

A new version that has changed one fails here, before it fails in some other way. Versions beyond
the bounds in pyproject.toml are not installed.
"""

from __future__ import annotations

import inspect
from typing import Any

import pytest
from gevent import get_hub
from gevent.hub import Hub
from gevent.ssl import SSLSocket
from gunicorn import util
from gunicorn.arbiter import Arbiter
from gunicorn.workers import base
from gunicorn.workers.ggevent import GeventWorker
from gunicorn.workers.workertmp import WorkerTmp
from statsd.client.udp import StatsClient
from urllib3 import HTTPConnectionPool, PoolManager
from urllib3.connection import HTTPConnection, HTTPSConnection

# Classes and modules, and what is called or overridden in them, with the parameters it has to take.
USED: dict[Any, dict[str, list[str]]] = {
    Arbiter: {
        "manage_workers": [],
        "spawn_workers": [],
        "spawn_worker": [],
        "murder_workers": [],
        "kill_worker": ["pid", "sig"],
        "reap_workers": [],
        "wait_for_signals": ["timeout"],
        "halt": [],
        "stop": ["graceful"],
        "reload": [],
        "reexec": [],
        "handle_usr1": [],
    },
    util: {"_setproctitle": ["title"]},
    WorkerTmp: {"notify": [], "last_update": [], "fileno": [], "close": []},
    GeventWorker: {
        "init_process": [],
        "init_signals": [],
        "patch": [],
        "run": [],
        "load_wsgi": [],
        "notify": [],
        "handle_exit": ["sig", "frame"],
        "handle_quit": ["sig", "frame"],
        "handle_usr1": ["sig", "frame"],
    },
    HTTPConnection: {"_new_conn": [], "connect": [], "close": []},
    HTTPSConnection: {"_new_conn": [], "connect": []},
    HTTPConnectionPool: {"_new_conn": [], "_put_conn": ["conn"], "close": []},
    PoolManager: {"connection_from_pool_key": ["pool_key", "request_context"]},
    StatsClient: {"_send": ["data"], "pipeline": []},
    Hub: {"handle_error": ["context", "type", "value", "tb"]},
    SSLSocket: {"do_handshake": []},
}


@pytest.mark.parametrize(
    ("owner", "name", "parameters"),
    [(owner, name, wanted) for owner, names in USED.items() for name, wanted in names.items()],
    ids=lambda value: getattr(value, "__name__", None) if not isinstance(value, list) else "",
)
def test_what_is_used_is_there_and_takes_what_it_took(
    owner: Any, name: str, parameters: list[str]
) -> None:
    found = inspect.signature(getattr(owner, name)).parameters
    needed = [
        each.name
        for each in found.values()
        if each.name != "self"
        and each.default is inspect.Parameter.empty
        and each.kind not in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    ]
    assert set(parameters) <= set(found)
    assert set(needed) <= set(parameters)


def test_attributes_that_are_used_are_there() -> None:
    assert {"WORKERS", "LISTENERS", "SIG_NAMES", "WORKER_BOOT_ERROR"} <= set(dir(Arbiter))
    assert base.WorkerTmp is not None
    assert {"QueueCls", "ConnectionCls", "scheme"} <= set(dir(HTTPConnectionPool))
    pool = HTTPConnectionPool("localhost", 1)
    assert pool.pool is not None
    assert HTTPConnection("localhost", 1)._dns_host == "localhost"
    manager = PoolManager()
    assert {"http", "https"} <= set(manager.pool_classes_by_scheme)
    assert isinstance(manager.connection_pool_kw, dict)
    client = StatsClient("127.0.0.1", 1)
    assert client._addr == ("127.0.0.1", 1)
    client._sock.close()
    loop = get_hub().loop
    assert {"io", "timer", "async_", "run_callback", "run_callback_threadsafe"} <= set(dir(loop))
