"""A process's TLS contexts as they are now: with certificates and ticket keys that are renewed."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from chp_gevent.config.options import Options
from chp_gevent.config.tls_contexts import ServerContext, TlsContexts
from chp_gevent.config.tls_parts import PARTS, TlsPart
from chp_gevent.runtime.session_tickets import AVAILABLE
from chp_gevent.shared.shared_files import SharedFiles
from chp_gevent.shared.ticket_secrets import TicketSecrets

if TYPE_CHECKING:
    import ssl

log = logging.getLogger("chp_gevent.server")


class SharedTls:
    """What the arbiter shares with its children for that; make it before forking.

    Args:
        options: the server's.
        contexts: those that were made of the files at the start.
        secrets: what ticket keys are made of.

    Attributes:
        contexts: those that a child begins with: the arbiter's at the fork.
        secrets: as above.
        files: contents of certificate files that have changed since, by the part that has some.
    """

    def __init__(self, options: Options, contexts: TlsContexts, secrets: TicketSecrets) -> None:
        self.contexts = contexts
        self.secrets = secrets
        self.files = {
            part: SharedFiles("chp-gevent-certificates") for part in PARTS if part.paths(options)
        }
        contexts.use_secrets(secrets.read())
        if not AVAILABLE:
            log.debug("keys of TLS sessions are OpenSSL's: no reload or new certificate keeps them")


class LiveTls:
    """Renews the contexts of one process. :meth:`look` is to be called again and again.

    Args:
        options: the server's.
        shared: what the arbiter shows.
        uses: what to call with another context, by part; others are no matter of this process.
    """

    def __init__(
        self,
        options: Options,
        shared: SharedTls,
        uses: Mapping[TlsPart, Callable[[ssl.SSLContext], None]],
    ) -> None:
        self._options = options
        self._shared = shared
        self._uses = uses
        contexts = shared.contexts
        # Of what connections are accepted with now; who has a ticket comes back to that.
        self._tickets = {
            part: server.tickets
            for part in uses
            if isinstance(server := getattr(contexts, part.name), ServerContext)
        }
        self._secrets = -1
        # Files may have changed since the fork.
        self._numbers = {
            part: contexts.numbers.get(part.name, 0) for part in uses if part in shared.files
        }

    def look(self) -> None:
        """Take over what has been renewed."""
        for part, number in self._numbers.items():
            if self._shared.files[part].number != number:
                self._renew(part)
        secrets = self._shared.secrets
        if secrets.number != self._secrets:
            self._secrets = secrets.number
            present = secrets.read()
            for tickets in self._tickets.values():
                tickets.use(present)

    def _renew(self, part: TlsPart) -> None:
        number, contents = self._shared.files[part].read()
        self._numbers[part] = number
        try:
            context = part.build_from(self._options, contents)
        except (OSError, ValueError) as error:
            # The arbiter could; this process lacks memory, or descriptors.
            log.error("%s: the new certificate can't be used here: %s", part.flags, error)
            return
        if isinstance(context, ServerContext):
            context.tickets.use(self._shared.secrets.read())
            self._tickets[part] = context.tickets
            context = context.context
        self._uses[part](context)
