"""configurable-http-proxy in Python, on gunicorn, gevent and urllib3."""

from chp_gevent._version import __version__

__all__ = ["__version__"]
