"""Small real clients and targets on the loopback interface, for tests and scripts."""

from tests.kit.peers.echo_target import EchoTarget
from tests.kit.peers.load import KeepAliveLoad
from tests.kit.peers.messages import BadMessage, Incomplete, Request, Response
from tests.kit.peers.raw_client import RawClient, chunked, fetch, get
from tests.kit.peers.raw_target import (
    OK,
    Exchange,
    RawTarget,
    Reply,
    response,
    stalled,
    then_close,
    then_reset,
)
from tests.kit.peers.stream_targets import LargeBodyTarget, SseTarget, pattern_sha256
from tests.kit.peers.waiting import wait_until
from tests.kit.peers.websocket_target import WebSocketEchoTarget

__all__ = [
    "OK",
    "BadMessage",
    "EchoTarget",
    "Exchange",
    "Incomplete",
    "KeepAliveLoad",
    "LargeBodyTarget",
    "RawClient",
    "RawTarget",
    "Reply",
    "Request",
    "Response",
    "SseTarget",
    "WebSocketEchoTarget",
    "chunked",
    "fetch",
    "get",
    "pattern_sha256",
    "response",
    "stalled",
    "then_close",
    "then_reset",
    "wait_until",
]
