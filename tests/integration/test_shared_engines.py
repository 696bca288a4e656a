"""Ways to the engine of routes that servers share: TLS, Sentinels, a cluster."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.kit.authority import Authority
from tests.kit.engine import running_engine
from tests.kit.failovers import a_cluster
from tests.kit.server import free_ports, run_to_exit
from tests.kit.shared_servers import (
    StartServer,
    engine_fixture,
    needs_redis,
    start_fixture,
)

pytestmark = [pytest.mark.ours, needs_redis]

__all__ = ["engine_fixture", "start_fixture"]


def test_a_cluster(tmp_path: Path, start: StartServer) -> None:
    with ExitStack() as stack:
        (node,) = a_cluster(stack, tmp_path, 1, 0)
        url = f"redis+cluster://127.0.0.1:1,127.0.0.1:{node.port}"
        first, second = (start(name, url=url) for name in "ab")
        first.api.add("/new", "http://127.0.0.1:9")
        assert second.api.remove("/new") == 204


def test_over_tls(tmp_path: Path, start: StartServer) -> None:
    authority = Authority(tmp_path / "ca")
    key, cert = authority.issue("localhost")
    (port,) = free_ports(1)
    tls = ("--tls-port", str(port), "--tls-key-file", key, "--tls-cert-file", cert)
    with running_engine(tmp_path, *tls, "--tls-ca-cert-file", authority.ca):
        url = f"rediss://localhost:{port}"
        ours = ("--storage-ssl-ca", authority.ca)
        shown = ("--storage-ssl-cert", cert, "--storage-ssl-key", key)
        first, second = (start(name, *ours, *shown, url=url) for name in "ab")
        first.api.add("/new", "http://127.0.0.1:9")
        assert second.api.remove("/new") == 204
        # A certificate of nobody that is known.
        refused = run_to_exit(
            *("--storage-backend", url, "--storage-start-timeout", "1", "--port", "0")
        )
        assert refused.returncode == 1
        assert "certificate verify failed" in refused.stdout + refused.stderr
