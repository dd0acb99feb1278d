"""One end of a WebSocket whose messages are seen: how it ends, and who breaks the protocol."""

import gc
import struct
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from comfyproxy.proxy.draining import Work
from comfyproxy.proxy.websocket_end import CLOSE_TIMEOUT
from tests.proxy.websocket_peers import MIB, Client, Join, frame, joining

SLACK = 5
"""Seconds by which deadlines, whose resolution is a quarter of one, may be late after some looks."""

join = pytest.fixture(joining)


@contextmanager
def traced() -> Iterator[Callable[[], int]]:
    """Follows the memory that is taken; gives a function that says how many octets it was at most."""
    gc.collect()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    most = 0
    try:
        yield lambda: most
    finally:
        most = tracemalloc.get_traced_memory()[1] - before
        tracemalloc.stop()


# Closing

CODES = [
    (1000, ""),
    (1000, "done"),
    (1001, "leaving"),
    (1003, ""),
    (1008, "not you"),
    (1011, "broke"),
    (1012, ""),
    (1013, "later"),
    (1014, "gateway"),
    (3000, "x" * 123),
    (4999, "ünïcödé"),
    (None, ""),
]


@pytest.mark.parametrize(("code", "reason"), CODES)
@pytest.mark.parametrize("is_comfyui", [False, True])
def test_what_the_backend_closes_with_reaches_the_client(
    join: Join, code: int | None, reason: str, is_comfyui: bool
) -> None:
    joined = join(comfyui=is_comfyui)
    joined.server.say("last words")
    joined.server.say_goodbye(code, reason)
    joined.run()
    assert joined.client.messages == ["last words"]
    assert joined.client.closed_with == joined.server.closed_with == (code, reason)
    assert joined.client.ended == "closed"


@pytest.mark.parametrize(("code", "reason"), CODES)
def test_what_the_client_closes_with_reaches_the_backend(join: Join, code: int | None, reason: str) -> None:
    joined = join()
    joined.client.say("last words")
    joined.client.say_goodbye(code, reason)
    joined.run()
    assert joined.server.messages == ["last words"]
    assert joined.client.closed_with == joined.server.closed_with == (code, reason)
    assert joined.client.ended == joined.server.ended == "closed"
    assert joined.rig.leases == 0


def test_both_may_close_at_once(join: Join) -> None:
    joined = join()
    joined.client.say_goodbye(4001, "me")
    joined.server.say_goodbye(4002, "you")
    joined.run()
    assert joined.client.is_gone
    assert joined.server.is_gone
    assert joined.client.closed_with[0] in (4001, 4002)
    assert joined.server.closed_with[0] in (4001, 4002)


@pytest.mark.parametrize("how", ["close", "reset", "finish"])
def test_a_backend_that_vanishes_is_a_bad_gateway_to_the_client(join: Join, how: str) -> None:
    joined = join()
    joined.server.say("last words")
    joined.run()
    getattr(joined.server, how)()
    joined.run()
    assert joined.client.messages == ["last words"]
    assert joined.client.closed_with == (1014, "The connection to the server was lost.")
    assert joined.client.is_gone
    assert joined.rig.leases == 0


@pytest.mark.parametrize("how", ["close", "reset", "finish"])
def test_a_client_that_vanishes_is_going_away_to_the_backend(join: Join, how: str) -> None:
    joined = join()
    joined.client.say("last words")
    joined.run()
    getattr(joined.client, how)()
    joined.run()
    assert joined.server.messages == ["last words"]
    assert joined.server.closed_with == (1001, "The client is gone.")
    assert joined.server.is_gone
    assert joined.rig.leases == 0


def test_the_lease_lasts_until_the_backend_has_closed_too(join: Join) -> None:
    joined = join()
    joined.server.ignores_close = True
    joined.client.say_goodbye(1000)
    joined.run()
    assert joined.client.is_gone
    assert joined.rig.leases == 1
    joined.advance(CLOSE_TIMEOUT + SLACK)
    assert joined.server.ended == "reset"
    assert joined.rig.leases == 0


@pytest.mark.parametrize("is_comfyui", [False, True])
def test_a_proxy_that_stops_says_1001_to_both(join: Join, is_comfyui: bool) -> None:
    joined = join(comfyui=is_comfyui)
    joined.server.say("last")
    joined.run()
    (connection,) = joined.rig.proxy.connections
    assert connection.work is (Work.EVENTS if is_comfyui else Work.WEBSOCKET)
    connection.end()
    joined.run()
    assert joined.client.messages == ["last"]
    assert joined.client.closed_with == joined.server.closed_with == (1001, "The proxy is stopping.")
    assert (joined.client.is_gone, joined.rig.leases) == (True, 0)


def test_a_client_that_never_answers_a_close_frame_is_cut_off(join: Join) -> None:
    joined = join()
    joined.client.ignores_close = True
    joined.server.say_goodbye(1000)
    joined.run()
    assert joined.server.is_gone
    assert not joined.client.is_gone
    joined.advance(CLOSE_TIMEOUT + SLACK)
    assert joined.client.ended == "reset"
    assert joined.rig.leases == 0


def test_a_backend_that_says_goodbye_and_stays_is_cut_off(join: Join) -> None:
    joined = join()
    joined.server.raw = True
    joined.server.send(frame(8, struct.pack("!H", 1000), masked=False))
    joined.run()
    assert joined.client.closed_with == (1000, "")
    assert not joined.server.ended
    joined.advance(CLOSE_TIMEOUT + SLACK)
    assert joined.server.ended == "reset"


def test_what_is_sent_to_a_peer_that_has_said_goodbye_is_dropped(join: Join) -> None:
    joined = join()
    joined.client.say_goodbye(1000)
    joined.server.say("too late")
    joined.server.ping(b"too late")
    joined.run()
    assert joined.client.messages == []
    assert joined.client.is_gone


# What breaks the protocol (rule 29)

VIOLATIONS = {
    "reserved bit": (frame(1, b"x", rsv=2), 1002),
    "compressed bit without the extension": (frame(1, b"x", rsv=4), 1002),
    "reserved opcode": (frame(3, b"x"), 1002),
    "reserved control opcode": (frame(11, b"x"), 1002),
    "long ping": (frame(9, b"x" * 126), 1002),
    "huge ping": (b"\x89\xff" + struct.pack("!Q", 2**40) + bytes(4) + b"x" * 1000, 1002),
    "ping in fragments": (frame(9, b"x", fin=False), 1002),
    "continuation of nothing": (frame(0, b"x"), 1002),
    "message inside a message": (frame(1, b"x", fin=False) + frame(1, b"y"), 1002),
    "close frame of one octet": (frame(8, b"x"), 1002),
    "length not minimal": (b"\x81\xfe\x00\x01" + bytes(4) + b"x", 1002),
    "length of 64 bits": (b"\x82\xff" + b"\xff" * 8 + bytes(4), 1002),
    "bad UTF-8": (frame(1, b"caf\xe9!"), 1007),
    "bad UTF-8 in a fragment": (frame(1, b"ok", fin=False) + frame(0, b"\xff"), 1007),
    "UTF-8 that ends early": (frame(1, b"caf\xc3"), 1007),
    "surrogate": (frame(1, b"\xed\xa0\x80"), 1007),
    "bad UTF-8 in a reason": (frame(8, struct.pack("!H", 1000) + b"\xff"), 1007),
    **{
        f"close code {code}": (frame(8, struct.pack("!H", code)), 1002) for code in (0, 999, 1004, 1005, 1006)
    },
    **{f"close code {code}": (frame(8, struct.pack("!H", code)), 1002) for code in (1015, 1016, 2999, 5000)},
}


def unmasked(octets: bytes) -> bytes:
    """The same frames as a server sends them: without the mask bit and the mask of zeros."""
    out = b""
    while octets:
        length = octets[1] & 0x7F
        extra = {126: 2, 127: 8}.get(length, 0)
        size = int.from_bytes(octets[2 : 2 + extra], "big") if extra else length
        head, body = octets[: 2 + extra], octets[6 + extra :]
        out += bytes([head[0], head[1] & 0x7F]) + head[2:] + body[:size]
        octets = body[size:]
    return out


@pytest.mark.parametrize("name", VIOLATIONS)
@pytest.mark.parametrize("piece", [0, 1])
def test_a_client_that_breaks_the_protocol_hears_which_part_of_it(join: Join, name: str, piece: int) -> None:
    octets, code = VIOLATIONS[name]
    joined = join()
    joined.client.say("before")
    joined.client.send(octets + frame(1, b"after"), piece)
    joined.run()
    assert joined.client.closed_with[0] == code
    assert joined.client.is_gone
    assert joined.server.messages == ["before"]
    assert joined.server.closed_with == (1001, "The client sent what may not be sent.")
    assert joined.rig.leases == 0


@pytest.mark.parametrize("name", VIOLATIONS)
def test_a_backend_that_breaks_the_protocol_is_told_and_the_client_gets_a_bad_gateway(
    join: Join, name: str
) -> None:
    octets, code = VIOLATIONS[name]
    joined = join()
    joined.server.say("before")
    joined.server.send(unmasked(octets) + frame(1, b"after", masked=False))
    joined.run()
    assert joined.server.closed_with[0] == code
    assert joined.client.messages == ["before"]
    assert joined.client.closed_with == (1014, "The server sent what may not be sent.")
    assert joined.server.is_gone
    assert joined.rig.leases == 0


@pytest.mark.parametrize("who", ["client", "server"])
def test_who_breaks_the_protocol_instead_of_answering_a_close_frame_is_done_with(
    join: Join, who: str
) -> None:
    joined = join()
    peer, other = (joined.client, joined.server) if who == "client" else (joined.server, joined.client)
    peer.raw = True
    other.say_goodbye(4000, "bye")
    joined.run()
    peer.send(frame(3, masked=who == "client"))
    joined.run()
    assert peer.ended == "closed"
    assert other.closed_with == (4000, "bye")
    assert joined.rig.leases == 0


def test_masks_are_for_clients_alone(join: Join) -> None:
    joined = join()
    joined.client.send(frame(1, b"x", masked=False))
    joined.run()
    assert joined.client.closed_with == (1002, "unmasked client-to-server frame")
    joined = join()
    joined.server.send(frame(1, b"x", masked=True))
    joined.run()
    assert joined.server.closed_with[0] == 1002


@pytest.mark.parametrize("in_fragments", [False, True])
def test_a_message_of_the_client_that_is_too_large_ends_with_1009(join: Join, in_fragments: bool) -> None:
    joined = join(max_message=10_000)
    joined.client.say(b"x" * 10_000)
    joined.client.say(*([b"y" * 6000] * 2 if in_fragments else [b"y" * 10_001]))
    joined.run()
    assert joined.client.closed_with[0] == 1009
    assert joined.server.messages == [b"x" * 10_000]
    assert joined.server.closed_with[0] == 1001


def test_a_message_of_the_backend_that_is_too_large_ends_with_1009_there_and_1014_here(join: Join) -> None:
    joined = join(max_message=10_000)
    joined.server.say(b"x" * 10_000)
    joined.server.say(b"y" * 10_001)
    joined.run()
    assert joined.server.closed_with[0] == 1009
    assert joined.client.messages == [b"x" * 10_000]
    assert joined.client.closed_with[0] == 1014


def test_a_message_counts_as_what_it_is_inflated(join: Join) -> None:
    joined = join(client=Client(deflate=True), max_message=10_000)
    joined.client.say(b"x" * 10_000)
    joined.client.say(b"x" * 10_001)
    joined.run()
    assert joined.client.closed_with[0] == 1009
    assert joined.server.messages == [b"x" * 10_000]


def test_octets_that_do_not_inflate_end_with_1007(join: Join) -> None:
    joined = join(client=Client(deflate=True))
    joined.client.send(frame(2, b"\xff\xff\xff\xff", rsv=4))
    joined.run()
    assert joined.client.closed_with[0] == 1007


def test_a_message_that_says_it_will_be_too_large_is_refused_before_it_comes(join: Join) -> None:
    joined = join(max_message=10_000)
    joined.client.send(b"\x82\xff" + struct.pack("!Q", 20 * MIB) + bytes(4) + b"x")
    joined.run()
    assert joined.client.closed_with[0] == 1009


def test_a_small_message_cannot_inflate_to_a_huge_one(join: Join) -> None:
    joined = join(client=Client(deflate=True), max_message=10_000)
    compressor = zlib.compressobj(wbits=-15)
    deflated = b"".join(compressor.compress(bytes(MIB)) for _ in range(200))
    with traced() as peak:
        joined.client.send(frame(2, deflated, rsv=4))
        joined.run()
    assert joined.client.closed_with[0] == 1009
    assert peak() < 20 * MIB


def test_what_floods_in_behind_a_violation_is_not_kept_and_ends_soon(join: Join) -> None:
    joined = join()
    joined.client.stays_open = True
    joined.client.raw = True
    joined.client.send(frame(3))
    joined.run()
    joined.client.send(b"\x82\xff" + struct.pack("!Q", 64 * MIB) + bytes(4))
    joined.run()
    with traced() as peak:
        for _ in range(20):
            joined.client.send(bytes(MIB))
            joined.run()
    assert peak() < 8 * MIB
    joined.advance(CLOSE_TIMEOUT + SLACK)
    assert joined.client.ended
    assert not joined.rig.proxy.connections
