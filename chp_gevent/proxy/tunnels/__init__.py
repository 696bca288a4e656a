"""Upgraded connections: bytes between a client and a target."""
