"""As ``gunicorn -c python:chp_gevent.gunicorn_conf``, for a checkout."""

from chp_gevent.gunicorn_conf import *  # noqa: F403
