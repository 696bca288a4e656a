"""What a worker has no use for, and therefore does not have."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

from chp_gevent.config.options import SECRET_VARIABLES, Options, ServerTlsOptions, TcpAddress
from chp_gevent.config.privileges import without_secrets
from chp_gevent.config.storage_options import EnginePlace, SharedStoreOptions
from chp_gevent.proxy.worker import ProxyWorker
from chp_gevent.shared.segment import Segment

TLS = ServerTlsOptions("key", "cert", passphrase="of clients")
API_TLS = ServerTlsOptions("key", "cert", passphrase="of the API", flag_prefix="--api-ssl")
SHARED = SharedStoreOptions(
    EnginePlace("unix", path="/x"), username="u", password="secret", sentinel_password="secret"
)
OPTIONS = Options(
    TcpAddress("", 8000),
    TcpAddress("", 8001),
    tls=TLS,
    api_tls=API_TLS,
    auth_token="secret",
    shared_store=SHARED,
)


def test_a_worker_is_given_no_secret_of_the_api() -> None:
    worker = ProxyWorker.__new__(ProxyWorker)
    nothing: Any = None
    worker.take(OPTIONS, nothing, Segment(rows=1, routes=1), nothing, 0, [])
    assert worker.options == without_secrets(OPTIONS)
    assert (worker.options.auth_token, worker.options.api_tls) == (None, None)
    assert worker.options.tls == TLS, "it serves with that"
    shared = worker.options.shared_store
    assert shared is not None
    assert (shared.username, shared.password, shared.sentinel_password) == (None, None, None)
    assert "secret" not in repr(OPTIONS)


def test_there_is_a_variable_for_each_secret() -> None:
    assert set(SECRET_VARIABLES) == {
        "CONFIGPROXY_AUTH_TOKEN",
        "CONFIGPROXY_SSL_KEY_PASSPHRASE",
        "CONFIGPROXY_API_SSL_KEY_PASSPHRASE",
        "CONFIGPROXY_STORAGE_USERNAME",
        "CONFIGPROXY_STORAGE_PASSWORD",
        "CONFIGPROXY_STORAGE_SENTINEL_PASSWORD",
    }


PROGRAM = """
import os, subprocess, sys
from chp_gevent.config.privileges import forget_environment
copy = os.environ.copy()
forget_environment(copy)
child = subprocess.run(["env"], capture_output=True, check=True).stdout
with open("/proc/self/environ", "rb") as shown:
    everything = [shown.read(), child, repr(copy).encode(), repr(os.environ).encode()]
sys.exit(int(any(b"s3cret" in text for text in everything) or b"KEPT=it" not in child))
"""


def test_the_environment_has_no_secret_any_more() -> None:
    secrets = {name: f"s3cret-{name}" for name in SECRET_VARIABLES}
    environment = {**os.environ, **secrets, "KEPT": "it"}
    done = subprocess.run([sys.executable, "-c", PROGRAM], env=environment, check=False)
    assert done.returncode == 0
