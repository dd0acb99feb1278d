"""Whatever octets a client or a backend sends, the proxy goes on and lets go of everything."""

from hypothesis import given, settings
from hypothesis import strategies as st

from comfyproxy.core.config import Limits, Timeouts
from comfyproxy.testing import Rig, ScriptedBackend, Step
from comfyproxy.testing.rig import OK

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"

PIECES_OF_REQUESTS = [
    b"GET / HTTP/1.1\r\n",
    b"POST /x HTTP/1.1\r\n",
    b"HEAD / HTTP/1.0\r\n",
    b"OPTIONS * HTTP/1.1\r\n",
    b"Host: a\r\n",
    b"Content-Length: 5\r\n",
    b"Content-Length: 0\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Connection: close\r\n",
    b"Connection: upgrade\r\nUpgrade: websocket\r\n",
    b"Expect: 100-continue\r\n",
    b"Expect: 1\r\n",
    b"Max-Forwards: 0\r\n",
    b"\r\n",
    b"hello",
    b"5\r\nhello\r\n",
    b"0\r\n",
    b"0\r\n\r\n",
    b"X: " + b"x" * 400 + b"\r\n",
    b"\n",
    b"\r",
    b"\x00",
    b"\xff",
    GET,
]

PIECES_OF_ANSWERS = [
    b"HTTP/1.1 200 OK\r\n",
    b"HTTP/1.0 200 OK\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\n",
    b"HTTP/1.1 101 Switching Protocols\r\n",
    b"HTTP/1.1 204 No Content\r\n",
    b"HTTP/1.1 205 Reset Content\r\n",
    b"HTTP/1.1 304 Not Modified\r\n",
    b"HTTP/1.1 500 \r\n",
    b"Content-Length: 5\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Connection: close\r\n",
    b"Connection: upgrade\r\nUpgrade: websocket\r\n",
    b"\r\n",
    b"hello",
    b"5\r\nhello\r\n",
    b"0\r\n\r\n",
    b"\n",
    b"\x00",
    OK,
]


def octets(pieces: list[bytes]) -> st.SearchStrategy[bytes]:
    """Anything, but mostly what looks like something."""
    return st.lists(st.one_of(st.sampled_from(pieces), st.binary(max_size=8)), max_size=12).map(b"".join)


QUICK = Timeouts(connect=1, head=2, body=2, response=2, idle=2, keepalive=2, backend_keepalive=2)
SMALL = Limits(line=100, head=300, fields=8, body=100)

many = settings(max_examples=150)

# Drawn, not parametrised: pytest-twisted runs a test of hypothesis that has parameters once only.
FRONT = st.sampled_from(["daemon", "site", "streaming"])


def new_rig(front, backend) -> Rig:
    return Rig(backend, front=front, timeouts=QUICK, limits=SMALL)


def check_over(rig) -> None:
    """Everything ends by itself in time."""
    rig.advance(60, step=1)
    assert rig.leases == 0
    assert rig.close() == []


@many
@given(
    front=FRONT,
    sent=octets(PIECES_OF_REQUESTS),
    piece=st.sampled_from([0, 1, 7]),
    end=st.sampled_from(["", "close", "finish", "reset"]),
)
def test_no_octets_of_a_client_fail_the_proxy(fronts, front, sent, piece, end):
    rig = new_rig(fronts[front], ScriptedBackend([Step(send=OK)]))
    client = rig.ask(sent, piece)
    if end and not client.is_gone:
        getattr(client, end)()
        rig.network.run()
    check_over(rig)


@many
@given(
    front=FRONT,
    sent=octets(PIECES_OF_ANSWERS),
    piece=st.sampled_from([0, 1, 7]),
    end=st.sampled_from(["", "close", "finish", "reset"]),
    request_=st.sampled_from(
        [
            GET,
            GET * 3,
            GET.replace(b"GET", b"HEAD"),
            GET.replace(b"1.1", b"1.0"),
            b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
            b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 50\r\n\r\nhello",
            b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
            b"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\nhello",
        ]
    ),
)
def test_no_octets_of_a_backend_fail_the_proxy(fronts, front, sent, piece, end, request_):
    rig = new_rig(fronts[front], ScriptedBackend([Step(send=sent, piece=piece)]))
    rig.ask(request_)
    for connection in rig.backend.connections:
        if end and not connection.is_gone:
            getattr(connection, end)()
    rig.network.run()
    check_over(rig)
