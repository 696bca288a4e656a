"""The proxy as a WSGI application (PEP 3333): the way of a request, phase by phase.

What HTTP needs beyond WSGI travels in one environ key, ``chp.client``: the
:class:`~chp_gevent.http.connection.ClientConnection` with the request as it was sent.
Under a server that does not set it, :mod:`chp_gevent.proxy.wsgi_client` makes one from the
environ; upgrades, interim responses and trailers are not available then.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Generator, Iterable
from http.client import responses as REASONS
from typing import Any

from chp_gevent.channel.segment import (
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
from chp_gevent.channel.subscriber import Subscriber
from chp_gevent.http.answer import AnswerCut, AnswerFields, BufferedBody, Headers
from chp_gevent.http.connection import ClientConnection, StartResponse
from chp_gevent.http.peer import Peer
from chp_gevent.http.section import ForwardedKey
from chp_gevent.http.wire import Buffer, RequestHead, ResponseHead, serialise_fields
from chp_gevent.options import ProxyOptions
from chp_gevent.proxy import headers as header_fields
from chp_gevent.proxy.errors import ErrorPages
from chp_gevent.proxy.exchange import Exchange
from chp_gevent.proxy.forwarding import Forwarding, forwardings
from chp_gevent.proxy.target import Target, joined_path, origin_form, without_prefix
from chp_gevent.proxy.target_connection import TargetError
from chp_gevent.proxy.upstream import Upstream
from chp_gevent.proxy.wsgi_client import client_from_environ
from chp_gevent.routing.paths import host_segment, request_path
from chp_gevent.routing.table import Route, RouteTable

log = logging.getLogger("chp_gevent.proxy")

HEALTH_PATH = "/_chp_healthz"
_HEALTH = b'{"status":"OK"}'

# Bytes of the outgoing form of a header section. That of a route with long headers is not kept.
_MAX_KEPT_BYTES = 4096

Handover = Callable[[ClientConnection, Any, bytes, ResponseHead, Route], None]


class ProxyApplication:
    """Forwards each request to the target of the longest matching route.

    ``on_upgrade`` is given the client, the target's stream, what the target sent behind its
    101, that answer, and the route; it has a tunnel started once the application returns.
    """

    def __init__(
        self,
        options: ProxyOptions,
        table: RouteTable,
        subscriber: Subscriber,
        segment: Segment,
        row: memoryview[int],
        upstream: Upstream,
        on_upgrade: Handover,
    ) -> None:
        self._options = options
        self._table = table
        self._subscriber = subscriber
        self._words = segment.words
        self._activity = segment.activity
        self._row = row
        self._upstream = upstream
        self._errors = ErrorPages(options, upstream)
        self._on_upgrade = on_upgrade
        self._forwarding, self._forwarding_with = forwardings(options)
        self._debug = log.isEnabledFor(logging.DEBUG)
        self._rewrites_location = options.auto_rewrite or options.protocol_rewrite is not None

    def __call__(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        """Answer one request. Raises ``WireError`` and ``ClientGone`` to the server."""
        client: Any = environ.get("chp.client") or client_from_environ(environ)
        head = client.head
        if head.target == HEALTH_PATH:
            start_response("200 OK", [("Content-Type", "application/json")])
            return [_HEALTH]
        # With a body it can't be one (RFC 6455, 4.1), and is forwarded as any other request.
        websocket = head.upgrade == "websocket" and head.method == "GET" and not head.has_body
        self._row[REQUESTS_WS if websocket else REQUESTS_WEB] += 1
        try:
            route = self._find_route(head)
            if route is None:
                return self._fail(404, "", head, websocket, start_response)
            exchange, response = self._forward(client, route, websocket)
            if response.status == 101:
                return self._upgrade(client, exchange, response, route, start_response)
            return self._answer(client, exchange, response, route, start_response)
        except TargetError as error:
            self._row[TARGET_ERRORS[error.kind.value]] += 1
            return self._fail(503, str(error), head, websocket, start_response)

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

    # -- there

    def _forward(
        self, client: ClientConnection, route: Route, websocket: bool
    ) -> tuple[Exchange, ResponseHead]:
        """Send a request on and return its exchange and the head of the response.

        A request that may be repeated is sent once more when a connection that had been idle
        breaks before it answers: the target closed it as it was being reused.
        """
        target, pool = self._upstream.target(route.target)
        options = route.options
        forwarding = self._forwarding if options is None else self._forwarding_with(options)
        request = self._request(client, route, target, websocket, forwarding)
        if self._debug:
            kind = "WS" if websocket else "WEB"
            log.debug("PROXY %s %s to %s", kind, _logged(client.head), route.target)
        timeout = None if websocket else forwarding.timeout
        on_upload = self._counter(client, route) if client.head.has_body else None
        while True:
            exchange = Exchange(client, pool, timeout, on_upload, self._count_download)
            try:
                return exchange, exchange.request(request, upgrade=websocket)
            except TargetError as error:
                if not exchange.prepare_repetition(error):
                    raise
                on_upload = None  # it has been counted
                pool.close_idle(float("inf"))
                # Meanwhile the pool may have been closed, as one that nobody uses.
                _, pool = self._upstream.target(route.target)

    def _request(
        self,
        client: ClientConnection,
        route: Route,
        target: Target,
        websocket: bool,
        forwarding: Forwarding,
    ) -> bytes:
        """Return the head of the request as the target gets it."""
        head = client.head
        asked = head.target
        if not asked.startswith("/"):
            asked = origin_form(asked, head.method)
        if forwarding.strip_prefix:
            asked = without_prefix(asked, self._path_prefix(route))
        # Most have none: not to call saves 1,800 instructions of a small request.
        if target.path != "/" and self._options.prepend_path:
            asked = joined_path(target.path, asked)
        line = f"{head.method} {asked} HTTP/1.1\r\n".encode("latin-1")
        # Derived from the header section alone (and who sent it where): remembered with it.
        section = head.section
        key: ForwardedKey = (client.peer, websocket, target.origin)
        if route.options is not None:
            key += (forwarding, route.prefix if forwarding.tell_prefix else "")
        fields = section.forwarded.get(key)
        if fields is None:
            fields = self._request_fields(head, client.peer, target, websocket, forwarding, route)
            if len(fields) <= _MAX_KEPT_BYTES:
                section.keep_forwarded(key, fields)
        return line + fields

    def _path_prefix(self, route: Route) -> str:
        if self._options.host_routing:
            return "/" + route.prefix.partition("/")[2].partition("/")[2]
        return route.prefix

    def _request_fields(
        self,
        head: RequestHead,
        peer: Peer,
        target: Target,
        websocket: bool,
        forwarding: Forwarding,
        route: Route,
    ) -> bytes:
        """Return the header section of the request as the target gets it."""
        options = self._options
        hosts = head.noted.get("host")
        forwarded = None
        if options.x_forward:
            host = hosts[0] if hosts else ""
            forwarded = header_fields.forwarded_headers(
                head.fields,
                peer,
                host,
                websocket=websocket,
                kept=options.trusted_proxies is not None,
            )
        fields = header_fields.request_headers(
            head.fields, head.connection_options, forwarded, trusted=peer.trusted
        )
        if forwarding.tell_prefix:
            # Without --trusted-proxies nobody is believed: applications build links from it.
            kept = options.trusted_proxies is not None and peer.trusted
            fields = header_fields.with_prefix(fields, self._path_prefix(route), kept=kept)
        if websocket:
            fields += (("Connection", "Upgrade"), ("Upgrade", "websocket"))
        else:
            if head.chunked:
                fields.append(("Transfer-Encoding", "chunked"))
            if _takes_trailers(head):
                # RFC 9110, 10.1.4: or a proxy that does not know TE would pass it on.
                fields += (("Connection", "TE"), ("TE", "trailers"))
        if forwarding.change_origin:
            fields = header_fields.replaced(fields, {"host": ("Host", target.origin)})
        elif hosts is None:
            fields.insert(0, ("Host", target.origin))
        if forwarding.custom:
            fields = header_fields.replaced(fields, forwarding.custom)
        return serialise_fields(fields) + b"\r\n"

    # -- and back

    def _answer(
        self,
        client: ClientConnection,
        exchange: Exchange,
        response: ResponseHead,
        route: Route,
        start_response: StartResponse,
    ) -> Iterable[bytes]:
        """Pass a response on, piece by piece as it comes."""
        status = response.status
        body = exchange.response(response)
        self._row[STATUS + status] += 1
        answer = self._answer_fields(response)
        if self._rewrites_location and header_fields.rewrites_location(status):
            fields = self._with_location(answer.fields, client.head, route)
        else:
            client.prepared = answer
            fields = list(answer.fields)
        start_response(f"{status} {response.reason}", fields)
        counts = status < 300
        if counts:
            self._touch(route)
        if exchange.over:
            return body  # type: ignore[return-value]
        return BufferedBody(self._passed_on(body, route, client.head, counts))

    @staticmethod
    def _answer_fields(response: ResponseHead) -> AnswerFields:
        """Return the fields that go on to the client; remembered with their section."""
        section = response.section
        answer = section.answer
        if answer is None or response.fields is not section.fields:
            answer = AnswerFields(
                header_fields.response_headers(response.fields, response.connection_options)
            )
            if response.fields is section.fields:
                section.answer = answer
        return answer

    def _passed_on(
        self, body: Iterable[Buffer], route: Route, head: RequestHead, counts: bool
    ) -> Generator[Buffer, None, None]:
        """Yield a body; each piece of it, if it ``counts``, is activity on its route.

        Raises ``AnswerCut`` when the target breaks off.
        """
        try:
            for piece in body:
                if counts:
                    self._touch(route)
                yield piece
                del piece
        except TargetError as error:
            self._row[TARGET_ERRORS[error.kind.value]] += 1
            log.error("%s %s: %s", head.method, _logged(head), error)
            raise AnswerCut(str(error)) from error
        if counts:
            self._touch(route)

    def _with_location(self, headers: Headers, head: RequestHead, route: Route) -> Headers:
        options = self._options
        target, _ = self._upstream.target(route.target)
        host = head.noted.get("host", [""])[0] if options.auto_rewrite else None
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
        client: ClientConnection,
        exchange: Exchange,
        response: ResponseHead,
        route: Route,
        start_response: StartResponse,
    ) -> Iterable[bytes]:
        """Have the target's 101 passed on byte for byte, and a tunnel after it."""
        self._row[STATUS + 101] += 1
        headers = [(field.name, field.value) for field in response.fields]
        start_response(f"101 {response.reason}", headers)
        stream, early = exchange.take_streams()
        self._touch(route)
        self._on_upgrade(client, stream, early, response, route)
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

    def _counter(self, client: ClientConnection, route: Route) -> Callable[[int], None]:
        """Return what counts pieces of an upload as bytes and as activity."""
        timeout = self._options.timeout

        def count(size: int) -> None:
            self._row[BYTES_FROM_CLIENTS] += size
            self._touch(route)
            if timeout is not None:
                # A client that uploads is not silent, however long it takes.
                client.deadline = time.monotonic() + timeout

        return count

    def _count_download(self, size: int) -> None:
        self._row[BYTES_TO_CLIENTS] += size


def _hostname(head: RequestHead) -> str:
    """Return the host of a request without port (``--host-routing``)."""
    host = head.noted.get("host", [""])[0]
    if host.startswith("["):
        return host.lower().partition("]")[0] + "]"
    return host_segment(host.partition(":")[0])


def _takes_trailers(head: RequestHead) -> bool:
    """Whether a client says for itself that it takes trailers, and not for one behind it."""
    return "te" in head.connection_options and any(
        coding.strip(" \t").lower() == "trailers"
        for value in head.noted.get("te", ())
        for coding in value.split(",")
    )


def _logged(head: RequestHead) -> str:
    """Return a request target as it is logged: without its query, which may hold secrets."""
    return head.target.partition("?")[0]
