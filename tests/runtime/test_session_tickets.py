"""Keys of TLS session tickets, by handshakes in memory."""

from __future__ import annotations

import ssl

import pytest

from chp_gevent.runtime import session_tickets
from chp_gevent.runtime.session_tickets import SessionTickets
from tests.kit.authority import HOST, Authority

VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]
FIRST, SECOND, THIRD = (bytes([number]) * 32 for number in range(3))

needs_openssl = pytest.mark.skipif(
    not session_tickets.AVAILABLE, reason="OpenSSL can't be called beside ssl here"
)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tickets") / "ca")


@pytest.fixture(params=VERSIONS, ids=["TLS 1.2", "TLS 1.3"])
def client(request: pytest.FixtureRequest, authority: Authority) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=authority.ca)
    context.minimum_version = context.maximum_version = request.param
    return context


class Server:
    """A server's context of its own, as another process or a later generation has it."""

    def __init__(self, authority: Authority, *secrets: bytes, purpose: bytes = b"public") -> None:
        key, cert = authority.issue(HOST)
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(cert, key)
        self.tickets = SessionTickets(self.context, purpose)
        self.tickets.use(secrets)

    def meet(self, client: ssl.SSLContext, session: ssl.SSLSession | None = None) -> ssl.SSLObject:
        """Shake hands, and say a word, behind which a client has its ticket with TLS 1.3 too."""
        to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
        ours = self.context.wrap_bio(to_server, to_client, server_side=True)
        theirs = client.wrap_bio(to_client, to_server, server_hostname=HOST, session=session)
        waiting = [theirs, ours]
        while waiting:
            for each in list(waiting):
                try:
                    each.do_handshake()
                    waiting.remove(each)
                except ssl.SSLWantReadError:
                    pass
        ours.write(b"x")
        assert theirs.read() == b"x"
        return theirs


@needs_openssl
def test_a_session_is_resumed_by_whoever_has_the_secret(
    authority: Authority, client: ssl.SSLContext
) -> None:
    session = Server(authority, FIRST).meet(client).session
    again = Server(authority, FIRST).meet(client, session)
    assert again.session_reused
    assert not Server(authority, SECOND).meet(client, session).session_reused


@needs_openssl
def test_a_replaced_secret_resumes_and_the_client_gets_a_ticket_of_the_new_one(
    authority: Authority, client: ssl.SSLContext
) -> None:
    server = Server(authority, FIRST)
    session = server.meet(client).session
    server.tickets.use([SECOND, THIRD, FIRST])
    renewed = server.meet(client, session)
    assert renewed.session_reused
    server.tickets.use([THIRD, FIRST])
    assert not server.meet(client, renewed.session).session_reused, "its ticket is of the second"
    server.tickets.use([THIRD, SECOND])
    assert not server.meet(client, session).session_reused, "the first is forgotten"


@needs_openssl
def test_a_session_is_good_for_one_purpose(authority: Authority, client: ssl.SSLContext) -> None:
    session = Server(authority, FIRST).meet(client).session
    assert not Server(authority, FIRST, purpose=b"api").meet(client, session).session_reused


@needs_openssl
def test_without_secrets_no_ticket_is_given(authority: Authority, client: ssl.SSLContext) -> None:
    server = Server(authority)
    assert not server.meet(client, server.meet(client).session).session_reused


def test_where_openssl_can_t_be_reached_a_context_has_a_key_of_its_own(
    authority: Authority, client: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session_tickets, "_library", None)
    server = Server(authority, FIRST)
    session = server.meet(client).session
    assert server.meet(client, session).session_reused
    assert not Server(authority, FIRST).meet(client, session).session_reused
