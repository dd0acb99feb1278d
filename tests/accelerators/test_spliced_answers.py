"""Answers whose body the kernel moves: what the client, the backend and the next request see of it."""

import errno
import os
from collections.abc import Callable
from random import Random
from types import SimpleNamespace

import pytest
import pytest_twisted

from comfyproxy.core.balancing.routing import Default, Rewrite
from comfyproxy.core.config import Timeouts
from comfyproxy.proxy import splice
from comfyproxy.proxy.splice import PIPE_SIZE, WORTHWHILE
from comfyproxy.testing import ScriptedBackend, Step
from comfyproxy.testing.rig import OK
from tests.accelerators.loopback import MIB, Loopback, Spliced

pytestmark = pytest.mark.skipif(not hasattr(os, "splice"), reason="this system has no splice")

Make = Callable[..., Loopback]

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
DATA = Random(7).randbytes(3 * MIB)
LONG = 40 * MIB
"""More than the kernel keeps for two connections whose client does not read."""


def head(length: int, *fields: bytes) -> bytes:
    return b"\r\n".join((b"HTTP/1.1 200 OK", b"Content-Length: %d" % length, *fields, b"", b""))


SIZES = [
    1,
    WORTHWHILE - 1,
    WORTHWHILE,
    WORTHWHILE + 1,
    2 * WORTHWHILE - len(head(100_000)),
    2 * WORTHWHILE + 1,
    PIPE_SIZE - 1,
    PIPE_SIZE,
    PIPE_SIZE + 1,
    3 * MIB,
]


@pytest.mark.parametrize("accelerated", [True, False])
@pytest.mark.parametrize("size", SIZES)
@pytest_twisted.ensureDeferred
async def test_every_octet_arrives_and_both_connections_serve_the_next_request(
    make_proxy: Make, spliced: Spliced, size: int, accelerated: bool
) -> None:
    proxy = make_proxy(
        ScriptedBackend([Step(send=head(size) + DATA[:size]), Step(send=OK)]), accelerated=accelerated
    )
    client = await proxy.client()
    client.send(GET)
    assert (await client.answer(size))[1] == DATA[:size]
    client.send(GET)
    assert (await client.answer(2))[1] == b"ok"
    assert len(proxy.backend.connections) == 1
    # What comes with the head is copied, and that may be up to 64 KiB.
    if not accelerated or size < WORTHWHILE:
        assert spliced.made == []
    elif size > 3 * WORTHWHILE:
        assert spliced.made
    assert spliced.active == []


@pytest_twisted.ensureDeferred
async def test_a_body_that_comes_after_its_head_is_spliced_whole(make_proxy: Make, spliced: Spliced) -> None:
    proxy = make_proxy()
    client, backend = await proxy.ask(GET)
    backend.send(head(len(DATA)))
    await proxy.until(lambda: spliced.made)
    backend.send(DATA)
    assert (await client.answer(len(DATA)))[1] == DATA
    assert (len(spliced.made), spliced.octets) == (1, len(DATA))


@pytest_twisted.ensureDeferred
async def test_a_body_that_trickles_in_arrives_whole(make_proxy: Make, spliced: Spliced) -> None:
    proxy = make_proxy()
    client, backend = await proxy.ask(GET)
    backend.send(head(len(DATA)) + DATA, piece=7919)
    assert (await client.answer(len(DATA)))[1] == DATA
    assert spliced.octets > MIB


@pytest_twisted.ensureDeferred
async def test_a_client_that_does_not_read_stops_the_backend_and_loses_nothing(
    make_proxy: Make, spliced: Spliced
) -> None:
    proxy = make_proxy()
    client, backend = await proxy.ask(GET)
    client.pause()
    backend.send(head(LONG) + DATA * 13 + DATA[: LONG - 13 * len(DATA)])
    await proxy.until(lambda: spliced.active and spliced.active[0].waits_for_sink)
    await proxy.turns(100)
    (transfer,) = spliced.active
    # One pipe is all that is kept here, and the backend has most of the body yet.
    assert 0 < transfer._in_pipe <= PIPE_SIZE
    assert all(one.transport.is_flushed for one in proxy.proxy.connections)
    assert len(backend.transport.dataBuffer) + backend.transport._tempDataLen > LONG / 4
    client.resume()
    _, body = await client.answer(LONG)
    assert body == DATA * 13 + DATA[: LONG - 13 * len(DATA)]


@pytest_twisted.ensureDeferred
async def test_a_pipelined_request_is_answered_behind_it(make_proxy: Make, spliced: Spliced) -> None:
    proxy = make_proxy(
        ScriptedBackend([Step(send=head(MIB) + DATA[:MIB]), Step(send=head(MIB) + DATA[-MIB:])])
    )
    client = await proxy.client()
    client.send(GET * 2)
    assert (await client.answer(MIB))[1] == DATA[:MIB]
    assert (await client.answer(MIB))[1] == DATA[-MIB:]
    assert len(spliced.made) == 2


@pytest.mark.parametrize("end", ["close", "finish", "reset"])
@pytest.mark.parametrize("at", [0, 1000, MIB])
@pytest_twisted.ensureDeferred
async def test_an_answer_that_is_cut_short_looks_so(
    make_proxy: Make, spliced: Spliced, end: str, at: int
) -> None:
    proxy = make_proxy(log="combined")
    client, backend = await proxy.ask(GET)
    backend.send(head(len(DATA)))
    await proxy.until(lambda: spliced.active)
    backend.send(DATA[:at])
    await client.until(b"\r\n\r\n")
    await client.until_count(len(client.received.partition(b"\r\n\r\n")[0]) + 4 + at)
    getattr(backend, end)()
    _, body = await client.answer(len(DATA))
    assert client.ended
    assert body == DATA[:at]
    await proxy.until(lambda: backend.is_gone)
    assert proxy.leases == 0
    proxy.proxy.log.flush()
    assert b'"GET / HTTP/1.1" 200 %d ' % at in proxy.logged


@pytest.mark.parametrize("end", ["close", "reset"])
@pytest.mark.parametrize("reads", [True, False])
@pytest_twisted.ensureDeferred
async def test_a_client_that_leaves_takes_its_request_along(
    make_proxy: Make, spliced: Spliced, end: str, reads: bool
) -> None:
    proxy = make_proxy()
    client, backend = await proxy.ask(GET)
    if not reads:
        client.pause()
    backend.send(head(LONG) + DATA * 10)
    await proxy.until(lambda: spliced.octets > 0 and (reads or spliced.active[0].waits_for_sink))
    getattr(client, end)()
    assert not (await backend.until(None)).count(b"GET", 1)
    await proxy.until(lambda: proxy.leases == 0 and not proxy.proxy.connections)
    assert backend.ended == "reset"
    assert spliced.active == []


@pytest_twisted.ensureDeferred
async def test_octets_of_an_aborted_answer_reach_no_other_client(make_proxy: Make, spliced: Spliced) -> None:
    proxy = make_proxy()
    client, backend = await proxy.ask(GET)
    client.pause()
    backend.send(head(LONG) + b"x" * LONG)
    await proxy.until(lambda: spliced.active and spliced.active[0].waits_for_sink)
    client.reset()
    await proxy.until(lambda: not spliced.active)
    # Its pipe had octets in it, and is not kept.
    assert splice._spare == []
    other = await proxy.client()
    other.send(GET)
    (await proxy.backend.connected(1)).send(head(len(DATA)) + DATA)
    assert (await other.answer(len(DATA)))[1] == DATA


@pytest_twisted.ensureDeferred
async def test_what_comes_behind_a_spliced_body_reaches_nobody(make_proxy: Make, spliced: Spliced) -> None:
    proxy = make_proxy(ScriptedBackend([], [Step(send=OK)]))
    client, backend = await proxy.ask(GET)
    client.send(GET)
    backend.send(head(len(DATA)))
    await proxy.until(lambda: spliced.active)
    backend.send(DATA[:-1000])
    await proxy.until(lambda: spliced.octets == len(DATA) - 1000)
    backend.send(DATA[-1000:] + head(6) + b"poison")
    assert (await client.answer(len(DATA)))[1] == DATA
    assert (await client.answer(2))[1] == b"ok"
    await backend.until(None)


@pytest_twisted.ensureDeferred
async def test_a_connection_that_ended_with_the_body_is_not_used_again(
    make_proxy: Make, spliced: Spliced
) -> None:
    proxy = make_proxy(ScriptedBackend([], [Step(send=OK)]))
    client, backend = await proxy.ask(GET)
    # A POST is not sent twice: it shows which connection it takes.
    client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n")
    backend.send(head(len(DATA)))
    await proxy.until(lambda: spliced.active)
    backend.send(DATA)
    backend.close()
    assert (await client.answer(len(DATA)))[1] == DATA
    assert (await client.answer(2))[1] == b"ok"


@pytest_twisted.ensureDeferred
async def test_a_backend_that_says_it_will_close_is_not_kept(make_proxy: Make, spliced: Spliced) -> None:
    proxy = make_proxy()
    client, backend = await proxy.ask(GET)
    backend.send(head(len(DATA), b"Connection: close") + DATA)
    assert (await client.answer(len(DATA)))[1] == DATA
    await backend.until(None)
    assert client.ended == ""


@pytest_twisted.ensureDeferred
async def test_an_answer_that_stops_coming_is_cut_when_it_was_idle_for_too_long(
    make_proxy: Make, spliced: Spliced
) -> None:
    proxy = make_proxy(timeouts=Timeouts(idle=600))
    client, backend = await proxy.ask(GET)
    backend.send(head(len(DATA)))
    await proxy.until(lambda: spliced.active)
    for _ in range(3):
        proxy.advance(500)
        before = spliced.octets
        backend.send(DATA[:1000])
        await proxy.until(lambda before=before: spliced.octets == before + 1000)
    assert client.ended == ""
    proxy.advance(601)
    await client.until(None)
    assert spliced.active == []
    assert await backend.until(None)


@pytest.mark.parametrize("missing", ["pipe2", "first dup", "second dup"])
@pytest_twisted.ensureDeferred
async def test_without_descriptors_it_is_copied(
    make_proxy: Make, spliced: Spliced, missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy = make_proxy()
    client, backend = await proxy.ask(GET)
    calls: list[int] = []

    def refuse(*ignored: object) -> int:
        raise OSError(errno.EMFILE, "no more")

    def second(descriptor: int) -> int:
        calls.append(descriptor)
        return os.dup(descriptor) if len(calls) % 2 else refuse()

    replaced = {"pipe2": ("pipe2", refuse), "first dup": ("dup", refuse), "second dup": ("dup", second)}
    monkeypatch.setattr(splice, "os", SimpleNamespace(**vars(os) | dict([replaced[missing]])))
    backend.send(head(len(DATA)) + DATA)
    assert (await client.answer(len(DATA)))[1] == DATA
    assert spliced.made == []


@pytest_twisted.ensureDeferred
async def test_no_hole_is_left_in_a_body_when_moving_it_fails(
    make_proxy: Make, spliced: Spliced, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy = make_proxy(timeouts=Timeouts(idle=600))
    client, backend = await proxy.ask(GET)
    backend.send(head(len(DATA)))
    await proxy.until(lambda: spliced.active)
    (transfer,) = spliced.active
    failures: list[int] = []

    def failing(source: int, sink: int, count: int, flags: int) -> int:
        if sink == transfer._to and spliced.octets >= 100_000 and not failures:
            failures.append(count)
            raise OSError(errno.ENOMEM, "not now")
        return os.splice(source, sink, min(count, 50_000), flags=flags)

    monkeypatch.setattr(splice, "os", SimpleNamespace(**vars(os) | {"splice": failing}))
    backend.send(DATA)
    await proxy.until(lambda: failures)
    await proxy.turns(20)
    proxy.advance(601)
    _, body = await client.answer(len(DATA))
    assert client.ended
    assert body == DATA[: len(body)]


@pytest.mark.parametrize(
    ("method", "answer"),
    [
        (b"HEAD", head(len(DATA))),
        (b"GET", b"HTTP/1.1 304 Not Modified\r\nContent-Length: %d\r\n\r\n" % len(DATA)),
    ],
)
@pytest_twisted.ensureDeferred
async def test_what_has_no_body_is_never_spliced(
    make_proxy: Make, spliced: Spliced, method: bytes, answer: bytes
) -> None:
    proxy = make_proxy(ScriptedBackend([Step(send=answer), Step(send=OK)]))
    client = await proxy.client()
    client.send(GET.replace(b"GET", method))
    assert b"Content-Length: %d" % len(DATA) in (await client.answer(0))[0]
    client.send(GET)
    assert (await client.answer(2))[1] == b"ok"
    assert (len(proxy.backend.connections), spliced.made) == (1, [])


@pytest_twisted.ensureDeferred
async def test_chunks_are_seen_and_not_spliced(make_proxy: Make, spliced: Spliced) -> None:
    chunk = b"%x\r\n%b\r\n" % (MIB, DATA[:MIB])
    answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunk * 2 + b"0\r\n\r\n"
    proxy = make_proxy(ScriptedBackend([Step(send=answer)]))
    client = await proxy.client()
    client.send(GET)
    await client.until(b"\r\n0\r\n\r\n")
    assert (client.count > 2 * MIB, spliced.made) == (True, [])


class Watching:
    """A router that looks at answers of up to ``watch`` octets."""

    drop: frozenset[bytes] = frozenset()
    message_key = None

    def __init__(self, watch: int) -> None:
        self.watch = watch
        self.seen: list[bytes] = []

    def route(self, *ignored: object) -> Default:
        return Default()

    def place(self, *ignored: object) -> Rewrite:
        return Rewrite(watch=self.watch)

    def learn(self, answer: object, body: bytes, backend: object, now: float) -> None:
        self.seen.append(body)

    def cookies(self, value: bytes) -> bytes:
        return value


@pytest.mark.parametrize("watch", [len(DATA), len(DATA) - 1])
@pytest_twisted.ensureDeferred
async def test_what_a_router_watches_is_not_spliced(make_proxy: Make, spliced: Spliced, watch: int) -> None:
    router = Watching(watch)
    proxy = make_proxy(ScriptedBackend([Step(send=head(len(DATA)) + DATA)]), router=router)
    client = await proxy.client()
    client.send(GET)
    assert (await client.answer(len(DATA)))[1] == DATA
    assert (router.seen == [DATA]) == (watch == len(DATA)) == (not spliced.made)


@pytest_twisted.ensureDeferred
async def test_the_access_log_counts_every_octet(make_proxy: Make, spliced: Spliced) -> None:
    proxy = make_proxy(ScriptedBackend([Step(send=head(len(DATA)) + DATA)]), log="combined")
    client = await proxy.client()
    client.send(GET)
    await client.answer(len(DATA))
    proxy.proxy.log.flush()
    assert b'"GET / HTTP/1.1" 200 %d ' % len(DATA) in proxy.logged
    assert spliced.made


@pytest_twisted.ensureDeferred
async def test_a_proxy_that_stops_ends_it(make_proxy: Make, spliced: Spliced) -> None:
    proxy = make_proxy()
    client, backend = await proxy.ask(GET)
    client.pause()
    backend.send(head(LONG) + DATA * 10)
    await proxy.until(lambda: spliced.active and spliced.active[0].waits_for_sink)
    await proxy.proxy.close()
    assert spliced.active == []
    assert (await backend.until(None), backend.ended)[1] == "reset"
