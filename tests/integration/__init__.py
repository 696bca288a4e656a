"""Tests that start real processes and talk to them with real clients."""
