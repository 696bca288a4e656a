"""The parts of a server that have certificates, and how each is made of contents of files.

Children build a context anew when the arbiter shows them contents that have changed; it does so
itself before, to see whether they fit. So what one can build, all can.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Final

from chp_gevent.config.options import ClientTlsOptions, OptionError, Options, ServerTlsOptions
from chp_gevent.config.tls_contexts import client_context, resuming_context
from chp_gevent.shared.memory_file import memory_file
from chp_gevent.shared.segment import (
    CERTIFICATE_ENDS_API,
    CERTIFICATE_ENDS_PUBLIC,
    CERTIFICATE_ENDS_TARGETS,
)
from chp_gevent.shared.shared_files import Contents

_FILES: Final = ("cert", "key", "ca", "dhparam")

TlsOptions = ServerTlsOptions | ClientTlsOptions


@dataclass(frozen=True)
class TlsPart:
    """A part of a server that has a context of its own.

    Attributes:
        name: what ``TlsContexts`` and the metrics call it.
        flags: what its options begin with; what the log calls it.
        ends: the word of the segment's header that tells when its certificate ends.
        options_of: returns what a server's options say of it, or None.
        build: makes the context; raises OptionError. A ``ServerContext`` or an ``SSLContext``.
    """

    name: str
    flags: str
    ends: int
    options_of: Callable[[Options], TlsOptions | None]
    build: Callable[[Any], Any]

    def paths(self, options: Options) -> list[str]:
        """Return the files that it is made of."""
        found = self.options_of(options)
        paths = [getattr(found, name, None) for name in _FILES]
        return sorted({path for path in paths if path is not None})

    def certificate(self, options: Options) -> str | None:
        """Return the file with its own certificate."""
        return getattr(self.options_of(options), "cert", None)

    def build_from(self, options: Options, contents: Contents) -> Any:
        """Make the context of contents in place of the files. Raises OptionError, OSError."""
        part = self.options_of(options)
        assert part is not None
        with in_memory(contents) as names:
            moved: dict[str, Any] = {
                name: names[path]
                for name in _FILES
                if (path := getattr(part, name, None)) is not None
            }
            if isinstance(part, ServerTlsOptions):
                # What has come must be of use.
                moved["comes_later"] = False
            try:
                return self.build(replace(part, **moved))
            except OptionError as error:
                text = str(error)
                for path, name in names.items():
                    text = text.replace(name, path)
                raise OptionError(text) from None


@contextmanager
def in_memory(contents: Contents) -> Iterator[dict[str, str]]:
    """Make files in memory; yields their names, by the paths of those they stand for.

    Raises OSError.
    """
    descriptors: list[int] = []
    try:
        names = {}
        for path, data in contents.items():
            descriptors.append(memory_file("chp-gevent-pem"))
            with open(descriptors[-1], "wb", closefd=False) as file:
                file.write(data)
            names[path] = f"/proc/self/fd/{descriptors[-1]}"
        yield names
    finally:
        for descriptor in descriptors:
            os.close(descriptor)


PUBLIC: Final = TlsPart(
    "public", "--ssl", CERTIFICATE_ENDS_PUBLIC, lambda options: options.tls, resuming_context
)
API: Final = TlsPart(
    "api", "--api-ssl", CERTIFICATE_ENDS_API, lambda options: options.api_tls, resuming_context
)
TARGETS: Final = TlsPart(
    "targets",
    "--client-ssl",
    CERTIFICATE_ENDS_TARGETS,
    lambda options: options.proxy.client_tls,
    client_context,
)
PARTS: Final = (PUBLIC, API, TARGETS)
