"""TLS session tickets under keys of our own: OpenSSL makes a key for each context otherwise.

``ssl`` has no way to set them, so the context's ``SSL_CTX *`` is read where CPython keeps it, and
OpenSSL is given a function that chooses the key of a ticket (OpenSSL 3). The simpler
``SSL_CTX_set_tlsext_ticket_keys`` takes one key: with another one, all tickets there are would be
of no use. The function costs too little of a handshake to be measured.

Where OpenSSL can't be reached like that, a context keeps its own key: its forks share that.
"""

from __future__ import annotations

import _ssl
import ctypes
import hashlib
import os
import ssl
from collections.abc import Callable, Iterable
from typing import Any, Final, NamedTuple

# <openssl/params.h>: OSSL_PARAM, and what ends a list of them.
_UTF8_STRING = 4
_OCTET_STRING = 5
_UNMODIFIED = ctypes.c_size_t(-1).value

# CPython's PySSLContext, all versions from 3.6: its first field.
_CONTEXT_AT = object.__basicsize__

_REFUSED, _USED, _RENEWED = range(3)
"""What the function returns: no such key; it is; it is, and the client shall have a new ticket."""

_NAME_BYTES: Final = 16
_KEY_BYTES: Final = 32


class _Parameter(ctypes.Structure):
    _fields_ = (
        ("key", ctypes.c_char_p),
        ("data_type", ctypes.c_uint),
        ("data", ctypes.c_void_p),
        ("data_size", ctypes.c_size_t),
        ("return_size", ctypes.c_size_t),
    )


class _Key(NamedTuple):
    name: bytes
    cipher: Any
    parameters: Any
    # What the parameters point to.
    kept: tuple[Any, ...]


_POINTER = ctypes.c_void_p
_Callback = ctypes.CFUNCTYPE(
    ctypes.c_int, _POINTER, _POINTER, _POINTER, _POINTER, _POINTER, ctypes.c_int
)


def _find_library() -> ctypes.CDLL | None:
    """Return the OpenSSL that ``ssl`` uses, if it can be called from here."""
    try:
        library = ctypes.CDLL(_ssl.__file__)
        for name, result, arguments in (
            ("SSL_CTX_set_tlsext_ticket_key_evp_cb", ctypes.c_long, (_POINTER, _Callback)),
            ("EVP_aes_256_cbc", _POINTER, ()),
            ("EVP_EncryptInit_ex", ctypes.c_int, (_POINTER,) * 5),
            ("EVP_DecryptInit_ex", ctypes.c_int, (_POINTER,) * 5),
            ("EVP_MAC_CTX_set_params", ctypes.c_int, (_POINTER, _POINTER)),
        ):
            function = getattr(library, name)
            function.restype = result
            function.argtypes = arguments
        # Some systems forbid the memory that it takes to be called from C.
        _Callback(lambda *_: 0)
    except (AttributeError, OSError, MemoryError):
        return None
    return library


_library = _find_library()
# Connections keep their context, and OpenSSL would call what is no more there.
_callbacks: list[Any] = []

AVAILABLE: Final = _library is not None
"""Whether keys can be set here."""


class SessionTickets:
    """The keys of the session tickets of one context.

    Args:
        context: a server's context.
        purpose: what the sessions are good for; under another one they are not resumed.
    """

    def __init__(self, context: ssl.SSLContext, purpose: bytes) -> None:
        self._purpose = purpose
        self._keys: list[_Key] = []
        if _library is None:
            return
        callback = _Callback(self._chooser(_library))
        _callbacks.append(callback)
        pointer = _POINTER.from_address(id(context) + _CONTEXT_AT)
        _library.SSL_CTX_set_tlsext_ticket_key_evp_cb(pointer, callback)

    def use(self, secrets: Iterable[bytes]) -> None:
        """Make tickets with a key of the first secret; resume sessions with those of the others."""
        self._keys[:] = [self._key(secret) for secret in secrets]

    def _key(self, secret: bytes) -> _Key:
        def derived(what: bytes) -> bytes:
            return hashlib.blake2b(what + self._purpose, key=secret, digest_size=32).digest()

        mac = ctypes.create_string_buffer(derived(b"mac:"), _KEY_BYTES)
        digest = ctypes.create_string_buffer(b"SHA256")
        parameters = (_Parameter * 3)(
            _parameter(b"key", _OCTET_STRING, mac, _KEY_BYTES),
            _parameter(b"digest", _UTF8_STRING, digest, len(b"SHA256")),
            _Parameter(),
        )
        cipher = ctypes.create_string_buffer(derived(b"cipher:"), _KEY_BYTES)
        name = derived(b"name:")[:_NAME_BYTES]
        return _Key(name, cipher, parameters, (mac, digest))

    def _chooser(self, library: ctypes.CDLL) -> Callable[..., int]:
        """Return the function that OpenSSL calls (SSL_CTX_set_tlsext_ticket_key_evp_cb(3))."""
        keys = self._keys
        aes = library.EVP_aes_256_cbc()
        encrypt, decrypt = library.EVP_EncryptInit_ex, library.EVP_DecryptInit_ex
        set_mac = library.EVP_MAC_CTX_set_params

        def choose(_: Any, name: int, iv: int, cipher: int, mac: int, makes: int) -> int:
            if not keys:
                return _REFUSED
            if makes:
                key = keys[0]
                ctypes.memmove(name, key.name, _NAME_BYTES)
                ctypes.memmove(iv, os.urandom(16), 16)
                done = encrypt(cipher, aes, None, key.cipher, iv) and set_mac(mac, key.parameters)
                return _USED if done else _REFUSED
            wanted = ctypes.string_at(name, _NAME_BYTES)
            for key in keys:
                if key.name == wanted:
                    break
            else:
                return _REFUSED
            if not (set_mac(mac, key.parameters) and decrypt(cipher, aes, None, key.cipher, iv)):
                return _REFUSED
            return _USED if key is keys[0] else _RENEWED

        return choose


def _parameter(key: bytes, kind: int, data: Any, size: int) -> _Parameter:
    return _Parameter(key, kind, ctypes.cast(data, _POINTER), size, _UNMODIFIED)
