"""HTTP/1.1 (RFC 9112): what is particular to this version of HTTP."""
