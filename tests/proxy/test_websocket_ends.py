"""Towards the client: permessage-deflate on its hop alone."""

import pytest
from websockets.client import ClientProtocol
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory
from websockets.uri import parse_uri

from tests.proxy.websocket_peers import MIB, Client, Join, Message, joining

KEY = b"dGhlIHNhbXBsZSBub25jZQ=="
REQUEST = (
    b"GET /ws HTTP/1.1\r\nHost: comfy.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: %b\r\n\r\n" % KEY
)
join = pytest.fixture(joining)


def test_long_texts_are_compressed_for_a_client_that_offers_it_and_nothing_else_is(join: Join) -> None:
    joined = join(client=Client(deflate=True))
    sent: list[Message] = ["{}" * 2000, b"\x00" * 4000, "short" * 10, "z" * 2 * MIB]
    sizes = []
    for message in sent:
        before = joined.client.transport.line.incoming.carried
        joined.server.say(message)
        joined.run()
        sizes.append(joined.client.transport.line.incoming.carried - before)
    assert joined.client.messages == sent
    assert sizes[0] < 400
    assert sizes[1:] == [4004, 52, 2 * MIB + 10]


def test_compressed_messages_of_the_client_reach_the_backend_as_they_were(join: Join) -> None:
    joined = join(client=Client(deflate=True))
    for message in ("{}" * 2000, b"\x00" * 4000, "tiny", ""):
        joined.client.say(message)
    joined.client.say("a" * 500, "b" * 500)
    joined.run()
    assert joined.server.messages == ["{}" * 2000, b"\x00" * 4000, "tiny", "", "a" * 500 + "b" * 500]
    assert all(not frame.rsv1 for frame in joined.server.frames)


@pytest.mark.parametrize(
    ("offers", "accepted"),
    [
        ("permessage-deflate", "permessage-deflate"),
        ("permessage-deflate; client_max_window_bits", "permessage-deflate"),
        ("permessage-deflate; server_no_context_takeover", "permessage-deflate; server_no_context_takeover"),
        ("permessage-deflate; server_max_window_bits=10", "permessage-deflate; server_max_window_bits=10"),
        ('permessage-deflate; server_max_window_bits="10"', "permessage-deflate; server_max_window_bits=10"),
        ("permessage-deflate; server_max_window_bits=8, permessage-deflate", "permessage-deflate"),
        ("permessage-deflate; server_max_window_bits=8", None),
        ("permessage-deflate; unknown", None),
        ("permessage-deflate; server_no_context_takeover; server_no_context_takeover", None),
        ("permessage-deflate; server_max_window_bits=\u00b2", None),
        ("x-webkit-deflate-frame, permessage-bzip2", None),
        (";,=;;", None),
    ],
)
def test_an_offer_of_compression_is_taken_or_declined_and_never_an_error(
    join: Join, offers: str, accepted: str | None
) -> None:
    joined = join(opened=False)
    joined.client.raw = True
    joined.client.connectionMade = lambda: None  # type: ignore[method-assign]
    joined.open()
    line = b"Sec-WebSocket-Extensions: %b\r\n\r\n" % offers.encode("latin-1")
    joined.client.send(REQUEST[:-2] + line)
    joined.run()
    head = joined.client.received.decode("latin-1").split("\r\n")
    assert head[0] == "HTTP/1.1 101 Switching Protocols"
    answers = [line.partition(": ")[2] for line in head if line.startswith("Sec-WebSocket-Extensions")]
    assert answers == ([accepted] if accepted else [])


def test_small_windows_and_no_takeover_are_kept_to(join: Join) -> None:
    offers = "permessage-deflate; server_max_window_bits=9; server_no_context_takeover"
    joined = join(opened=False)
    factory = ClientPerMessageDeflateFactory(server_no_context_takeover=True, server_max_window_bits=9)
    joined.client.protocol = ClientProtocol(
        parse_uri("ws://comfy.example/ws"), extensions=[factory], max_size=None
    )
    joined.open()
    assert joined.client.response.headers["Sec-WebSocket-Extensions"] == ";".join(
        ["permessage-deflate", *sorted(offers.split(";")[1:], reverse=True)]
    )
    texts: list[Message] = [str(number) * 300 for number in range(5)]
    for text in texts:
        joined.server.say(text)
    joined.run()
    assert joined.client.messages == texts
