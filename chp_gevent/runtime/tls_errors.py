"""Errors of TLS, in words."""

from __future__ import annotations


def describe_failure(error: OSError) -> str:
    """Say in a few words, for the log, why a handshake failed."""
    import ssl

    if isinstance(error, ssl.SSLCertVerificationError):
        return f"certificate not accepted: {error.verify_message}"
    if isinstance(error, ssl.SSLError) and error.reason:
        return error.reason.lower().replace("_", " ")
    return error.strerror or type(error).__name__
