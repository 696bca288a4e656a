"""The proxy as a WSGI application (PEP 3333): the way of a request, phase by phase.

What HTTP needs beyond WSGI is in one environ key, ``chp.request``: a
:class:`~chp_gevent.http.request.ClientRequest`. Under a server that does not set it,
:mod:`chp_gevent.proxy.wsgi_request` makes one from the environ; upgrades, interim responses and
trailers are not available then.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from http.client import responses as REASONS
from typing import Any, NoReturn

from chp_gevent.config.options import ProxyOptions
from chp_gevent.http.errors import ResponseCut
from chp_gevent.http.h1.fields import ResponseFields
from chp_gevent.http.h1.heads import RequestHead, ResponseHead
from chp_gevent.http.request import ClientRequest, StartResponse
from chp_gevent.http.response import BufferedBody, Headers
from chp_gevent.proxy import headers as header_fields
from chp_gevent.proxy.error_pages import ErrorPages
from chp_gevent.proxy.forwarding import forwardings
from chp_gevent.proxy.request_heads import RequestHeads
from chp_gevent.proxy.tunnels.upgrades import TargetUpgrade, TunnelStarter
from chp_gevent.proxy.upstream.connection import TargetError
from chp_gevent.proxy.upstream.exchange import Exchange, whole_body
from chp_gevent.proxy.upstream.pools import Upstream
from chp_gevent.proxy.wsgi_request import request_of
from chp_gevent.routing.paths import host_segment, request_path
from chp_gevent.routing.table import Route, RouteTable
from chp_gevent.shared.readiness import READY_PATHS, readiness
from chp_gevent.shared.segment import (
    ACTIVITY_COUNT,
    ACTIVITY_NS,
    BYTES_FROM_CLIENTS,
    BYTES_TO_CLIENTS,
    FIND_TARGET_COUNT,
    FIND_TARGET_NS,
    GENERATION,
    REQUESTS_WEB,
    REQUESTS_WS,
    STATUS,
    TARGET_ERRORS,
    Segment,
)
from chp_gevent.shared.subscriber import Subscriber

log = logging.getLogger("chp_gevent.proxy")

HEALTH_PATH = "/_chp_healthz"
OWN_PATHS = frozenset((HEALTH_PATH, *READY_PATHS))
"""Targets of requests that are for the proxy itself."""
_HEALTH = b'{"status":"OK"}'


class ProxyApplication:
    """Forwards each request to the target of the longest matching route.

    Args:
        options: the proxy's.
        table: the routes.
        subscriber: renews them.
        segment: the shared memory: of the routes' activity, and what tells that they changed.
        row: the account of the worker.
        upstream: the targets.
        tunnels: starts the tunnels of upgrades.
    """

    def __init__(
        self,
        options: ProxyOptions,
        table: RouteTable,
        subscriber: Subscriber,
        segment: Segment,
        row: memoryview[int],
        upstream: Upstream,
        tunnels: TunnelStarter,
    ) -> None:
        self._options = options
        self._table = table
        self._subscriber = subscriber
        self._words = segment.words
        self._activity = segment.activity
        self._row = row
        self._upstream = upstream
        self._errors = ErrorPages(options, upstream)
        self._tunnels = tunnels
        self._heads = RequestHeads(options)
        self._forwarding, self._forwarding_with = forwardings(options)
        self._debug = log.isEnabledFor(logging.DEBUG)
        self._rewrites_location = options.auto_rewrite or options.protocol_rewrite is not None

    def __call__(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        """Answer one request. Raises ``WireError`` and ``ClientGone`` to the server."""
        request = request_of(environ)
        head = request.head
        if head.target in OWN_PATHS:
            return self._answer_itself(head.target, start_response)
        # With a body it can't be one (RFC 6455, 4.1), and is forwarded as any other request.
        websocket = head.upgrade == "websocket" and head.method == "GET" and not head.has_body
        self._row[REQUESTS_WS if websocket else REQUESTS_WEB] += 1
        try:
            route = self._find_route(head)
            if route is None:
                return self._fail(404, "", head, websocket, start_response)
            exchange, response = self._forward(request, route, websocket)
            if response.status == 101:
                return self._upgrade(request, exchange, response, route, start_response)
            return self._answer(request, exchange, response, route, start_response)
        except TargetError as error:
            self._row[TARGET_ERRORS[error.kind.value]] += 1
            return self._fail(503, str(error), head, websocket, start_response)

    def _answer_itself(self, target: str, start_response: StartResponse) -> Iterable[bytes]:
        is_well, body = True, _HEALTH
        if target != HEALTH_PATH:
            is_well, body = readiness(self._words, target)
        status = "200 OK" if is_well else "503 Service Unavailable"
        start_response(status, [("Content-Type", "application/json")])
        return [body]

    # -- routing

    def _find_route(self, head: RequestHead) -> Route | None:
        """Return the route for a request."""
        started = time.perf_counter_ns()
        if self._words[GENERATION] != self._subscriber.generation:
            self._subscriber.catch_up()
        path = request_path(head.target)
        if self._options.host_routing:
            host = _hostname(head)
            path = f"/{host}{path}" if host else "/"
        route = self._table.find(path)
        row = self._row
        row[FIND_TARGET_NS] += time.perf_counter_ns() - started
        row[FIND_TARGET_COUNT] += 1
        return route

    # -- the request

    def _forward(
        self, request: ClientRequest, route: Route, websocket: bool
    ) -> tuple[Exchange, ResponseHead]:
        """Send a request on and return its exchange and the head of the response.

        A request that may be repeated is sent once more when a connection that had been idle
        breaks before it answers: the target closed it as it was being reused.
        """
        target, pool = self._upstream.target(route.target)
        options = route.options
        forwarding = self._forwarding if options is None else self._forwarding_with(options)
        head = self._heads.write(request, route, target, forwarding, websocket=websocket)
        if self._debug:
            kind = "WS" if websocket else "WEB"
            log.debug("PROXY %s %s to %s", kind, _logged(request.head), route.target)
        timeout = None if websocket else forwarding.timeout
        on_upload = self._upload_counter(request, route) if request.head.has_body else None
        while True:
            exchange = Exchange(request, pool, timeout, on_upload)
            try:
                return exchange, exchange.send(head, upgrade=websocket)
            except TargetError as error:
                if not exchange.prepare_repetition(error):
                    raise
                on_upload = None  # it has been counted
                pool.close_idle(float("inf"))
                # Meanwhile the pool may have been closed, as one that nobody uses.
                _, pool = self._upstream.target(route.target)

    # -- the response

    def _answer(
        self,
        request: ClientRequest,
        exchange: Exchange,
        response: ResponseHead,
        route: Route,
        start_response: StartResponse,
    ) -> Iterable[bytes]:
        """Pass a response on, piece by piece as it comes."""
        status = response.status
        received = exchange.received_body(response)
        self._row[STATUS + status] += 1
        answer = self._response_fields(response)
        if self._rewrites_location and header_fields.rewrites_location(status):
            fields = self._with_location(answer.fields, request.head, route)
        else:
            request.prepared = answer
            fields = list(answer.fields)
        start_response(f"{status} {response.reason}", fields)
        counts = status < 300
        if counts:
            self._touch(route)
        if received is not None:
            self._row[BYTES_TO_CLIENTS] += len(received)
            return whole_body(response, received)
        on_piece = self._download_counter(route if counts else None)
        return BufferedBody(exchange.stream_body(response, on_piece, self._cut_off(request.head)))

    @staticmethod
    def _response_fields(response: ResponseHead) -> ResponseFields:
        """Return the fields that go on to the client; remembered with their section."""
        section = response.section
        answer = section.answer
        if answer is None or response.fields is not section.fields:
            answer = ResponseFields(
                header_fields.response_headers(response.fields, response.connection_options)
            )
            if response.fields is section.fields:
                section.answer = answer
        return answer

    def _cut_off(self, head: RequestHead) -> Callable[[TargetError], NoReturn]:
        """Return what is called when a target breaks off in the middle of a response."""

        def cut_off(error: TargetError) -> NoReturn:
            self._row[TARGET_ERRORS[error.kind.value]] += 1
            log.error("%s %s: %s", head.method, _logged(head), error)
            raise ResponseCut(str(error)) from error

        return cut_off

    def _with_location(self, headers: Headers, head: RequestHead, route: Route) -> Headers:
        options = self._options
        target, _ = self._upstream.target(route.target)
        host = head.known_values.get("host", [""])[0] if options.auto_rewrite else None
        return [
            (
                name,
                header_fields.rewritten_location(
                    value, target.origin, host, options.protocol_rewrite
                )
                if name.lower() == "location"
                else value,
            )
            for name, value in headers
        ]

    def _upgrade(
        self,
        request: ClientRequest,
        exchange: Exchange,
        response: ResponseHead,
        route: Route,
        start_response: StartResponse,
    ) -> Iterable[bytes]:
        """Have the target's 101 passed on byte for byte, and a tunnel begin behind it."""
        self._row[STATUS + 101] += 1
        headers = [(field.name, field.value) for field in response.fields]
        block = response.raw.partition(b"\r\n")[2][:-2]
        if block.count(b"\n") == len(headers):  # or there was what a 101 can't have, a length
            # Clients are often simple: what they get is what their server has written.
            request.prepared = ResponseFields(headers, block)
        start_response(f"101 {response.reason}", list(headers))
        stream, early = exchange.take_stream()
        self._touch(route)
        path = _logged(request.head)
        request.upgrade(TargetUpgrade(self._tunnels, stream, early, route, path))
        return []

    def _fail(
        self,
        code: int,
        reason: str,
        head: RequestHead,
        websocket: bool,
        start_response: StartResponse,
    ) -> Iterable[bytes]:
        """Answer with an error of our own, and log it in one line."""
        self._row[STATUS + code] += 1
        log.error("%s %s %s %s", code, head.method, _logged(head), reason)
        if websocket:
            start_response(f"{code} {REASONS[code]}", [("Content-Length", "0")])
            return []
        headers, page = self._errors.page(code, head.target)
        headers.append(("Content-Length", str(len(page))))
        start_response(f"{code} {REASONS[code]}", headers)
        return [page]

    # -- accounts

    def _touch(self, route: Route) -> None:
        """Note activity on a route, now."""
        started = time.perf_counter_ns()
        self._activity[route.slot] = time.time()
        row = self._row
        row[ACTIVITY_NS] += time.perf_counter_ns() - started
        row[ACTIVITY_COUNT] += 1

    def _upload_counter(self, request: ClientRequest, route: Route) -> Callable[[int], None]:
        """Return what counts pieces of an upload as bytes and as activity."""

        def count(size: int) -> None:
            self._row[BYTES_FROM_CLIENTS] += size
            self._touch(route)
            # A client that uploads is not silent, however long it takes.
            request.note_activity()

        return count

    def _download_counter(self, route: Route | None) -> Callable[[int], None]:
        """Return what counts pieces of a response as bytes and as activity of the route, if any."""

        def count(size: int) -> None:
            self._row[BYTES_TO_CLIENTS] += size
            if route is not None:
                self._touch(route)

        return count


def _hostname(head: RequestHead) -> str:
    """Return the host of a request without port (``--host-routing``)."""
    host = head.known_values.get("host", [""])[0]
    if host.startswith("["):
        return host.lower().partition("]")[0] + "]"
    return host_segment(host.partition(":")[0])


def _logged(head: RequestHead) -> str:
    """Return a request target as it is logged: without its query, which may hold secrets."""
    return head.target.partition("?")[0]
