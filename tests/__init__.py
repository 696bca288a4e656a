"""Tests of chp-gevent; ``peers`` holds the clients and targets that they share."""
