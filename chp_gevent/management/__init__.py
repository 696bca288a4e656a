"""The management process: REST API, stores, metrics, statsd, redirect."""
