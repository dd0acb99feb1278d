"""Requests whose body the kernel moves: what the backend, the client and the next request see of it."""

import errno
import os
from collections.abc import Callable
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest
import pytest_twisted

from comfyproxy.core.balancing.routing import Default, NeedBody
from comfyproxy.core.config import Timeouts
from comfyproxy.proxy import splice
from comfyproxy.proxy.splice import PIPE_SIZE, WORTHWHILE
from comfyproxy.testing import ScriptedBackend
from comfyproxy.testing.rig import OK
from tests.accelerators.loopback import MIB, Client, Loopback, Spliced

pytestmark = pytest.mark.skipif(not hasattr(os, "splice"), reason="this system has no splice")

Make = Callable[..., Loopback]

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
DATA = Random(8).randbytes(3 * MIB)
LONG = 40 * MIB
"""More than the kernel keeps for two connections whose backend does not read."""

REFUSAL = b"HTTP/1.1 413 Too much\r\nContent-Length: 4\r\n\r\nless"


def head(length: int) -> bytes:
    return b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % length


async def body(proxy: Loopback, backend: Any, length: int) -> bytes:
    """The body of the first request that ``backend`` got, once so much of it is there."""
    start = backend.received.find(b"\r\n\r\n") + 4
    await proxy.until(lambda: sum(map(len, backend._pieces)) >= start + length)
    received: bytes = backend.received
    return received[start:]


async def under_way(proxy: Loopback, spliced: Spliced, length: int) -> tuple[Client, Any]:
    """A client and a backend with an upload of ``length`` octets that is being spliced."""
    client, backend = await proxy.ask(head(length))
    client.send(b"x" * 1000)
    await proxy.until(lambda: spliced.active)
    return client, backend


@pytest.mark.parametrize("accelerated", [True, False])
@pytest.mark.parametrize(
    "size",
    [1, WORTHWHILE - 1, WORTHWHILE, WORTHWHILE + 1, 3 * WORTHWHILE, PIPE_SIZE - 1, PIPE_SIZE, len(DATA)],
)
@pytest_twisted.ensureDeferred
async def test_every_octet_arrives_and_both_connections_serve_the_next_request(
    make_proxy: Make, spliced: Spliced, size: int, accelerated: bool
) -> None:
    proxy = make_proxy(accelerated=accelerated)
    client, backend = await proxy.ask(head(size))
    client.send(DATA[:size])
    assert await body(proxy, backend, size) == DATA[:size]
    await proxy.until(lambda: not spliced.active)
    backend.send(OK)
    assert (await client.answer(2))[1] == b"ok"
    client.send(GET)
    await proxy.until(lambda: b"GET / " in backend.received)
    backend.send(OK)
    assert (await client.answer(2))[1] == b"ok"
    assert (len(proxy.backend.connections), client.ended) == (1, "")
    if not accelerated or size < WORTHWHILE:
        assert spliced.made == []
    elif size >= 3 * WORTHWHILE:
        assert spliced.made


@pytest_twisted.ensureDeferred
async def test_a_body_that_trickles_in_arrives_whole(make_proxy: Make, spliced: Spliced) -> None:
    proxy = make_proxy()
    client, backend = await proxy.ask(head(len(DATA)))
    client.send(DATA, piece=7919)
    assert await body(proxy, backend, len(DATA)) == DATA
    assert spliced.octets > 2 * MIB


@pytest_twisted.ensureDeferred
async def test_a_pipelined_request_behind_it_is_the_next(make_proxy: Make, spliced: Spliced) -> None:
    proxy = make_proxy()
    client, backend = await under_way(proxy, spliced, len(DATA))
    client.send(DATA[1000:] + GET)
    await proxy.until(lambda: not spliced.active)
    assert (await body(proxy, backend, len(DATA)))[1000:] == DATA[1000:]
    await proxy.turns(20)
    assert b"GET / " not in backend.received[-1000:]
    backend.send(OK)
    assert (await client.answer(2))[1] == b"ok"
    await proxy.until(lambda: b"GET / " in backend.received[-1000:])
    backend.send(OK)
    assert (await client.answer(2))[1] == b"ok"


@pytest_twisted.ensureDeferred
async def test_a_backend_that_does_not_read_stops_the_client_and_loses_nothing(
    make_proxy: Make, spliced: Spliced
) -> None:
    proxy = make_proxy()
    client, backend = await proxy.ask(head(LONG))
    backend.pause()
    sent = DATA * 13 + DATA[: LONG - 13 * len(DATA)]
    client.send(sent)
    await proxy.until(lambda: spliced.active and spliced.active[0].waits_for_sink)
    await proxy.turns(100)
    (transfer,) = spliced.active
    assert 0 < transfer._in_pipe <= PIPE_SIZE
    assert len(client.transport.dataBuffer) + client.transport._tempDataLen > LONG / 4
    backend.resume()
    assert await body(proxy, backend, LONG) == sent


@pytest_twisted.ensureDeferred
async def test_a_backend_that_is_slow_is_not_the_client_s_fault(make_proxy: Make, spliced: Spliced) -> None:
    proxy = make_proxy(timeouts=Timeouts(body=60, response=1800))
    client, backend = await proxy.ask(head(LONG))
    backend.pause()
    client.send(b"x" * LONG)
    await proxy.until(lambda: spliced.active and spliced.active[0].waits_for_sink)
    proxy.advance(300)
    await proxy.turns(20)
    assert client.received == b""
    backend.resume()
    assert len(await body(proxy, backend, LONG)) == LONG
    assert client.received == b""


@pytest_twisted.ensureDeferred
async def test_a_backend_that_never_reads_on_is_504(make_proxy: Make, spliced: Spliced) -> None:
    proxy = make_proxy(timeouts=Timeouts(body=60, response=1800))
    client, backend = await proxy.ask(head(LONG))
    backend.pause()
    client.stays_open = True
    client.send(b"x" * LONG)
    await proxy.until(lambda: spliced.active and spliced.active[0].waits_for_sink)
    proxy.advance(1802)
    assert (await client.until(b"\r\n\r\n")).startswith(b"HTTP/1.1 504 ")
    assert (spliced.active, proxy.leases) == ([], 0)


@pytest_twisted.ensureDeferred
async def test_a_client_that_sends_no_more_is_408(make_proxy: Make, spliced: Spliced) -> None:
    proxy = make_proxy(timeouts=Timeouts(body=60))
    client, backend = await under_way(proxy, spliced, len(DATA))
    for _ in range(3):
        proxy.advance(50)
        before = spliced.octets
        client.send(b"x" * 10_000)
        await proxy.until(lambda before=before: spliced.octets == before + 10_000)
    assert client.received == b""
    proxy.advance(61)
    assert (await client.until(b"\r\n\r\n")).startswith(b"HTTP/1.1 408 ")
    await backend.until(None)
    assert (spliced.active, proxy.leases, backend.ended) == ([], 0, "reset")


@pytest.mark.parametrize("end", ["close", "finish", "reset"])
@pytest_twisted.ensureDeferred
async def test_a_client_that_leaves_takes_its_request_along(
    make_proxy: Make, spliced: Spliced, end: str
) -> None:
    proxy = make_proxy(log="combined")
    client, backend = await under_way(proxy, spliced, len(DATA))
    client.send(DATA[:MIB])
    await proxy.until(lambda: spliced.octets == MIB)
    getattr(client, end)()
    await backend.until(None)
    assert backend.ended == "reset"
    assert DATA.startswith((await body(proxy, backend, 1000))[1000:])
    await proxy.until(lambda: not proxy.proxy.connections)
    assert (spliced.active, proxy.leases) == ([], 0)
    proxy.proxy.log.flush()
    assert b'"POST / HTTP/1.1" 499 0 ' in proxy.logged


@pytest.mark.parametrize("end", ["close", "reset"])
@pytest.mark.parametrize("reads", [True, False])
@pytest_twisted.ensureDeferred
async def test_a_backend_that_dies_is_502_and_no_other_is_asked(
    make_proxy: Make, spliced: Spliced, end: str, reads: bool
) -> None:
    proxy = make_proxy(ScriptedBackend(), ScriptedBackend())
    client, backend = await proxy.ask(head(LONG))
    client.stays_open = True
    if not reads:
        backend.pause()
    client.send(b"x" * LONG)
    await proxy.until(lambda: spliced.active and (reads or spliced.active[0].waits_for_sink))
    getattr(backend, end)()
    assert (await client.until(b"\r\n\r\n")).startswith(b"HTTP/1.1 502 ")
    assert (spliced.active, proxy.leases) == ([], 0)
    assert proxy.backends[1].connections == []


@pytest.mark.parametrize("end", ["", "close"])
@pytest.mark.parametrize("reads", [True, False])
@pytest_twisted.ensureDeferred
async def test_an_answer_before_its_end_reaches_the_client(
    make_proxy: Make, spliced: Spliced, end: str, reads: bool
) -> None:
    proxy = make_proxy()
    client, backend = await proxy.ask(head(LONG))
    client.stays_open = True
    if not reads:
        backend.pause()
    client.send(b"x" * LONG)
    await proxy.until(lambda: spliced.active and (reads or spliced.active[0].waits_for_sink))
    backend.send(REFUSAL)
    if end:
        # With octets unread this is a reset right behind the answer.
        backend.close()
    answered, message = await client.answer(4)
    assert (answered.split(b"\r\n")[0], message) == (b"HTTP/1.1 413 Too much", b"less")
    assert b"Connection: close" in answered
    backend.resume()
    await backend.until(None)
    assert (spliced.active, proxy.leases) == ([], 0)


@pytest_twisted.ensureDeferred
async def test_both_directions_may_be_spliced_at_once(make_proxy: Make, spliced: Spliced) -> None:
    proxy = make_proxy()
    client, backend = await under_way(proxy, spliced, len(DATA))
    backend.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(DATA))
    await proxy.until(lambda: len(spliced.active) == 2)
    # An answer that ends before its request does ends that.
    most, rest = DATA[:-1000], DATA[-1000:]
    for start in range(0, len(DATA), MIB):
        backend.send(most[start : start + MIB])
        client.send(DATA[start : start + MIB] if start else DATA[1000:MIB])
    assert (await body(proxy, backend, len(DATA)))[1000:] == DATA[1000:]
    backend.send(rest)
    assert (await client.answer(len(DATA)))[1] == DATA
    await proxy.until(lambda: not spliced.active)
    client.send(GET)
    await proxy.until(lambda: b"GET / " in backend.received[-1000:])
    backend.send(OK)
    assert (await client.answer(2))[1] == b"ok"


@pytest_twisted.ensureDeferred
async def test_an_answer_that_ends_first_ends_the_upload(make_proxy: Make, spliced: Spliced) -> None:
    proxy = make_proxy()
    client, backend = await under_way(proxy, spliced, len(DATA))
    client.stays_open = True
    backend.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(DATA))
    await proxy.until(lambda: len(spliced.active) == 2)
    backend.send(DATA)
    assert (await client.answer(len(DATA)))[1] == DATA
    await client.until(None)
    assert (spliced.active, proxy.leases, client.ended) == ([], 0, "closed")
    await backend.until(None)


@pytest.mark.parametrize("missing", ["pipe2", "dup"])
@pytest_twisted.ensureDeferred
async def test_without_descriptors_it_is_copied(
    make_proxy: Make, spliced: Spliced, missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*ignored: object) -> int:
        raise OSError(errno.EMFILE, "no more")

    monkeypatch.setattr(splice, "os", SimpleNamespace(**vars(os) | {missing: refuse}))
    proxy = make_proxy()
    client, backend = await proxy.ask(head(len(DATA)))
    client.send(DATA)
    assert await body(proxy, backend, len(DATA)) == DATA
    assert spliced.made == []


class Gathering:
    """A router that wants to see every body."""

    drop: frozenset[bytes] = frozenset()
    message_key = None

    def __init__(self) -> None:
        self.seen: list[bytes] = []

    def route(self, head: object, body: bytes | None, now: float) -> Default | NeedBody:
        if body is None:
            return NeedBody(4 * MIB)
        self.seen.append(body)
        return Default()

    def place(self, *ignored: object) -> None:
        return None

    def cookies(self, value: bytes) -> bytes:
        return value


@pytest_twisted.ensureDeferred
async def test_a_body_that_a_router_wants_is_not_spliced(make_proxy: Make, spliced: Spliced) -> None:
    router = Gathering()
    proxy = make_proxy(router=router)
    _, backend = await proxy.ask(head(len(DATA)) + DATA)
    assert await body(proxy, backend, len(DATA)) == DATA
    assert (router.seen, spliced.made) == ([DATA], [])


@pytest_twisted.ensureDeferred
async def test_a_proxy_that_stops_ends_it(make_proxy: Make, spliced: Spliced) -> None:
    proxy = make_proxy()
    client, backend = await under_way(proxy, spliced, len(DATA))
    await proxy.proxy.close()
    assert spliced.active == []
    await client.until(None)
    await backend.until(None)
    assert (client.ended, backend.ended) == ("reset", "reset")
