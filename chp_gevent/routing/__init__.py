"""Paths and the route table: pure, no I/O."""
