"""``python -m chp_gevent`` is the ``chp-gevent`` command."""

from chp_gevent.cli import main

if __name__ == "__main__":
    main()
