"""Heads of requests as targets get them: request line, fields, and what is remembered of those."""

from __future__ import annotations

from chp_gevent.config.options import ProxyOptions
from chp_gevent.http.h1.fields import ForwardedKey, serialise_fields
from chp_gevent.http.h1.heads import RequestHead
from chp_gevent.http.peer import Peer
from chp_gevent.http.request import ClientRequest
from chp_gevent.proxy import headers as header_fields
from chp_gevent.proxy.forwarding import Forwarding
from chp_gevent.proxy.upstream.target import Target, joined_path, origin_form, without_prefix
from chp_gevent.routing.table import Route

# Bytes of the outgoing form of a header section. That of a route with long headers is not kept.
_MAX_KEPT_BYTES = 4096


class RequestHeads:
    """Writes the heads of requests to targets, as the proxy's options say."""

    def __init__(self, options: ProxyOptions) -> None:
        self._options = options
        self._prepends_path = options.prepend_path

    def write(
        self,
        request: ClientRequest,
        route: Route,
        target: Target,
        forwarding: Forwarding,
        *,
        websocket: bool,
    ) -> bytes:
        """Return the head of a request as the target gets it."""
        head = request.head
        asked = head.target
        if not asked.startswith("/"):
            asked = origin_form(asked, head.method)
        if forwarding.strip_prefix:
            asked = without_prefix(asked, self._path_prefix(route))
        # Most have none: not to call saves 1,800 instructions of a small request.
        if target.path != "/" and self._prepends_path:
            asked = joined_path(target.path, asked)
        line = f"{head.method} {asked} HTTP/1.1\r\n".encode("latin-1")
        # Derived from the header section alone (and who sent it where): remembered with it.
        section = head.section
        key: ForwardedKey = (request.peer, websocket, target.origin)
        if route.options is not None:
            key += (forwarding, route.prefix if forwarding.tell_prefix else "")
        fields = section.forwarded.get(key)
        if fields is None:
            fields = self._fields(head, request.peer, target, websocket, forwarding, route)
            if len(fields) <= _MAX_KEPT_BYTES:
                section.keep_forwarded(key, fields)
        return line + fields

    def _path_prefix(self, route: Route) -> str:
        if self._options.host_routing:
            return "/" + route.prefix.partition("/")[2].partition("/")[2]
        return route.prefix

    def _fields(
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
        hosts = head.known_values.get("host")
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


def _takes_trailers(head: RequestHead) -> bool:
    """Whether a client says for itself that it takes trailers, and not for one behind it."""
    return "te" in head.connection_options and any(
        coding.strip(" \t").lower() == "trailers"
        for value in head.known_values.get("te", ())
        for coding in value.split(",")
    )
