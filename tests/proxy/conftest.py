"""Fixtures for the tests of the data plane."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.kit.tunnel_pairs import Contexts, Joiner, trusting_contexts


@pytest.fixture(scope="session")
def contexts() -> Contexts:
    """TLS contexts of a server and of a client that trusts it."""
    return trusting_contexts()


@pytest.fixture
def join(contexts: Contexts) -> Iterator[Joiner]:
    """Makes tunnels, and closes them when the test is over."""
    joiner = Joiner(contexts)
    yield joiner
    joiner.close()
