"""Certificates from an ACME server (RFC 8555). Its modules need the extra ``[acme]``."""
