"""gunicorn's configuration for chp-gevent: flags of the proxy come from CHP_ARGS.

CHP_ARGS="--port 8000 --default-target http://127.0.0.1:9000" \\
    gunicorn -c python:chp_gevent.gunicorn_conf

Importing it reads the environment, and ends the process if the flags can't be understood.
"""

from chp_gevent.cli import settings_from_environment

globals().update(settings_from_environment())
