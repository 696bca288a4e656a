"""Tests of the management process."""
