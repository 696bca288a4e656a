"""One connection to the engine: calls and pipelines, without retries."""

from __future__ import annotations

import select
import ssl
from collections.abc import Iterable, Sequence
from typing import Any

from gevent.lock import Semaphore
from gevent.monkey import get_original
from redis import Connection
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError, ResponseError

FAILURES = (RedisError, OSError)
"""What a link raises."""


class NotSent(RedisConnectionError):
    """The connection was closed, and nothing of the command has been sent."""


class Link:
    """A connection that is open. When it fails once, it stays closed.

    redis-py would send a command again on another connection, perhaps to another server: a change
    would be made twice, or later than its sender has been told that it failed.

    Args:
        connection: a connection of redis-py.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        # The answers come in the order of the commands, whoever waits for them.
        self._lock = Semaphore(1)
        connection.connect()
        self._poller = get_original("select", "poll")()
        self._poller.register(connection._sock.fileno(), select.POLLIN)

    def call(self, *command: Any) -> Any:
        """Send a command, return the answer. Raises what is in ``FAILURES``, and ``NotSent``."""
        with self._lock:
            self._check()
            try:
                self._connection.send_command(*command, check_health=False)
                return self._connection.read_response()
            except ResponseError:
                raise
            except (AttributeError, TypeError, ValueError) as error:
                raise self._closed_under_us(error) from None
            except BaseException:
                # A greenlet that is killed, too: the answer would be taken for the next one's.
                self._connection.disconnect()
                raise

    def pipeline(self, commands: Sequence[Iterable[Any]]) -> list[Any]:
        """Send commands at once; return the answers, among them errors (``ResponseError``)."""
        with self._lock:
            self._check()
            answers: list[Any] = []
            try:
                packed = self._connection.pack_commands(commands)
                self._connection.send_packed_command(packed, check_health=False)
                for _ in commands:
                    try:
                        answers.append(self._connection.read_response())
                    except ResponseError as error:
                        answers.append(error)
            except (AttributeError, TypeError, ValueError) as error:
                raise self._closed_under_us(error) from None
            except BaseException:
                self._connection.disconnect()
                raise
            return answers

    def _closed_under_us(self, error: Exception) -> Exception:
        """Return what to raise when redis-py has stumbled over the end of its connection."""
        if self._connection._sock is not None:
            self._connection.disconnect()
            return error
        return RedisConnectionError("the connection is closed")

    def _check(self) -> None:
        """Raise ``NotSent`` if there is no connection any more; the engine may have closed it."""
        if self._connection._sock is None:
            raise NotSent("the connection is closed")
        if not self._is_open():
            self._connection.disconnect()
            raise NotSent("Connection closed by server")

    def _is_open(self) -> bool:
        """Whether nothing has come since the last answer: what comes then is the end."""
        if not self._poller.poll(0):
            return True
        sock = self._connection._sock
        try:
            sock.settimeout(0.0)
            sock.recv(1)
        except (BlockingIOError, ssl.SSLWantReadError):
            return True  # something for OpenSSL alone, such as a session ticket
        except OSError:
            return False
        finally:
            sock.settimeout(self._connection.socket_timeout)
        return False

    def close(self) -> None:
        """Close the connection; whoever waits for an answer gets an error."""
        self._connection.disconnect()
