"""What goes wrong with messages and those who send them."""


class WireError(Exception):
    """A message that must not be acted upon.

    ``status`` is what a server answers to such a request (400 unless a limit was passed),
    ``str(error)`` the reason in a few words.
    """

    def __init__(self, reason: str, status: int = 400) -> None:
        super().__init__(reason)
        self.status = status


class IncompleteMessage(WireError):
    """The connection ended inside a message."""


class ClientGone(BaseException):
    """The client has left: there is nobody to answer.

    Not an ``Exception``, so that no handler on the way takes it for a failure of the
    application.
    """


class ResponseCut(Exception):
    """An answer that has begun breaks off: the client must see that it is not complete.

    Raised by an application that has said in the log why.
    """
