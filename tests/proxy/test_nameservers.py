"""Questions to name servers that answer, lie, garble, stay silent, or are not there."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import CancelledError, maybeDeferred
from twisted.names import dns

from comfyproxy.core.names import NameServers
from comfyproxy.proxy import nameservers
from comfyproxy.proxy.nameservers import MAX_ADDRESSES, Found, LookupFailed, Question, look_up
from tests.proxy.lying_name_servers import Answer, NameServer, record, reply


@pytest_twisted.async_yield_fixture
async def server(running_reactor: Any) -> AsyncIterator[NameServer]:
    server = NameServer(running_reactor)
    yield server
    await maybeDeferred(server.port.stopListening)


@pytest_twisted.async_yield_fixture
async def other(running_reactor: Any) -> AsyncIterator[NameServer]:
    server = NameServer(running_reactor)
    yield server
    await maybeDeferred(server.port.stopListening)


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine is not to be taken for a silent server."""
    monkeypatch.setattr(nameservers, "PATIENCE", 10)
    monkeypatch.setattr(nameservers, "SECOND_FAMILY", 10)


async def ask(reactor: Any, server: NameServer, name: str = "gpu1") -> Found:
    return await look_up(reactor, NameServers((server.at,), attempts=1), name)


@pytest.mark.parametrize(
    ("values", "addresses"),
    [
        (("10.0.0.1",), ("10.0.0.1",)),
        (("fd00::1",), ("fd00::1",)),
        (("10.0.0.1", "10.0.0.2", "fd00::1"), ("fd00::1", "10.0.0.1", "10.0.0.2")),
        (("10.0.0.1", "10.0.0.1"), ("10.0.0.1",)),
        (("0.0.0.0",), ()),
        (("0.0.0.0", "10.0.0.1", "224.0.0.1"), ("10.0.0.1",)),
        ((), ()),
    ],
)
@pytest_twisted.ensureDeferred
async def test_a_name_has_the_addresses_of_both_families(
    running_reactor: Any, server: NameServer, values: tuple[str, ...], addresses: tuple[str, ...]
) -> None:
    server.know("gpu1", *values)
    assert (await ask(running_reactor, server)).addresses == addresses
    assert sorted(server.asked) == [("gpu1", dns.A), ("gpu1", dns.AAAA)]


@pytest_twisted.ensureDeferred
async def test_they_hold_for_the_shortest_time_on_the_way(running_reactor: Any, server: NameServer) -> None:
    server.know("gpu1", "rack.example", ttl=7)
    server.know("rack.example", "10.0.0.1", ttl=300)
    assert await ask(running_reactor, server) == Found(("10.0.0.1",), 7)
    server.know("gpu2", "10.0.0.1", "fd00::1", ttl=300)
    server.records["gpu2"][1] = record("gpu2", "fd00::1", 20)
    assert await ask(running_reactor, server, "gpu2") == Found(("fd00::1", "10.0.0.1"), 20)


@pytest_twisted.ensureDeferred
async def test_a_name_that_does_not_exist_is_no_failure(running_reactor: Any, server: NameServer) -> None:
    assert await ask(running_reactor, server) == Found((), 0)


@pytest_twisted.ensureDeferred
async def test_search_domains_are_searched(running_reactor: Any, server: NameServer) -> None:
    server.know("gpu1.b.example", "10.0.0.1")
    known = NameServers((server.at,), search=("a.example", "b.example"))
    assert (await look_up(running_reactor, known, "gpu1")).addresses == ("10.0.0.1",)
    assert server.asked[0][0] == "gpu1.a.example"


def of_another_question(question: dns.Message) -> bytes:
    question.queries = [dns.Query(b"gpu9", question.queries[0].type)]
    return reply(question, [record("gpu1", "10.6.6.6"), record("gpu9", "10.6.6.6")]).toStr()


def of_another_number(question: dns.Message) -> bytes:
    question.id ^= 1
    return reply(question, [record("gpu1", "10.6.6.6")]).toStr()


def a_question(question: dns.Message) -> bytes:
    message = reply(question, [record("gpu1", "10.6.6.6")])
    message.answer = 0
    return message.toStr()


def without_a_question(question: dns.Message) -> bytes:
    question.queries = []
    return reply(question, [record("gpu1", "10.6.6.6")]).toStr()


LIES: dict[str, Answer] = {
    "nothing": lambda question: None,
    "no octets": lambda question: b"",
    "garbage": lambda question: b"\xff" * 40,
    "half a message": lambda question: reply(question, [record("gpu1", "10.6.6.6")]).toStr()[:9],
    "another question": of_another_question,
    "another number": of_another_number,
    "a question": a_question,
    "no question": without_a_question,
    "it failed": lambda question: reply(question, code=dns.ESERVER).toStr(),
    "it refuses": lambda question: reply(question, code=dns.EREFUSED).toStr(),
    "too much for a datagram": lambda question: reply(question, trunc=1).toStr(),
}


@pytest.mark.parametrize("lie", LIES.values(), ids=LIES)
@pytest_twisted.ensureDeferred
async def test_who_says_nothing_useful_is_passed_over(
    running_reactor: Any,
    server: NameServer,
    other: NameServer,
    lie: Answer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(nameservers, "PATIENCE", 0.2)
    server.answer = lie
    with pytest.raises(LookupFailed):
        await ask(running_reactor, server)
    other.know("gpu1", "10.0.0.1")
    known = NameServers((server.at, other.at), attempts=9)
    assert (await look_up(running_reactor, known, "gpu1")).addresses == ("10.0.0.1",)


@pytest_twisted.ensureDeferred
async def test_records_of_other_names_are_not_believed(running_reactor: Any, server: NameServer) -> None:
    server.answer = lambda question: reply(
        question, [record("gpu9", "10.6.6.6"), record("gpu1", "10.0.0.1"), record("other", "gpu1")]
    ).toStr()
    assert (await ask(running_reactor, server)).addresses == ("10.0.0.1",)


@pytest_twisted.ensureDeferred
async def test_aliases_that_go_round_lead_nowhere(running_reactor: Any, server: NameServer) -> None:
    server.answer = lambda question: reply(question, [record("gpu1", "gpu2"), record("gpu2", "gpu1")]).toStr()
    assert (await ask(running_reactor, server)).addresses == ()


@pytest_twisted.ensureDeferred
async def test_a_long_list_is_cut_off(running_reactor: Any, server: NameServer) -> None:
    server.know("gpu1", *(f"10.0.{n // 200}.{n % 200 + 1}" for n in range(300)))
    assert len((await ask(running_reactor, server)).addresses) == MAX_ADDRESSES


@pytest_twisted.ensureDeferred
async def test_what_fits_of_an_answer_that_was_cut_is_used(running_reactor: Any, server: NameServer) -> None:
    server.answer = lambda question: reply(question, [record("gpu1", "10.0.0.1")], trunc=1).toStr()
    assert (await ask(running_reactor, server)).addresses == ("10.0.0.1",)


@pytest.mark.parametrize("silent", [dns.A, dns.AAAA])
@pytest_twisted.ensureDeferred
async def test_one_family_does_not_wait_for_the_other(
    running_reactor: Any, server: NameServer, silent: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nameservers, "SECOND_FAMILY", 0.05)
    server.know("gpu1", "10.0.0.1", "fd00::1")
    server.answer = lambda question: None if question.queries[0].type == silent else server.honest(question)
    found = await ask(running_reactor, server)
    assert found.addresses == (("fd00::1",) if silent == dns.A else ("10.0.0.1",))


@pytest_twisted.ensureDeferred
async def test_a_server_that_fails_for_one_family_is_good_for_the_other(
    running_reactor: Any, server: NameServer
) -> None:
    server.know("gpu1", "10.0.0.1")
    server.answer = lambda question: (
        reply(question, code=dns.ESERVER).toStr()
        if question.queries[0].type == dns.AAAA
        else server.honest(question)
    )
    try:
        assert (await ask(running_reactor, server)).addresses == ("10.0.0.1",)
    except LookupFailed:
        # The failure came first: whoever asks goes on to the next server.
        assert server.asked


@pytest.mark.parametrize("at", [("127.0.0.1", 1), ("::1", 1), ("255.255.255.255", 53)])
@pytest_twisted.ensureDeferred
async def test_a_server_that_is_not_there_fails_soon(
    running_reactor: Any, at: tuple[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nameservers, "PATIENCE", 30)
    with pytest.raises(LookupFailed):
        await look_up(running_reactor, NameServers((at,), attempts=1), "gpu1")


@pytest.mark.parametrize("name", ["gpü1", "x" * 64])
@pytest_twisted.ensureDeferred
async def test_a_name_that_no_question_takes_fails(
    running_reactor: Any, server: NameServer, name: str
) -> None:
    with pytest.raises(LookupFailed):
        await ask(running_reactor, server, name)


@pytest_twisted.ensureDeferred
async def test_without_a_socket_it_fails(server: NameServer) -> None:
    class Full:
        def callLater(self, *ignored: Any) -> Any:
            class Timer:
                def active(self) -> bool:
                    return False

            return Timer()

        def listenUDP(self, *ignored: Any, **options: Any) -> Any:
            raise OSError("too many open files")

    with pytest.raises(LookupFailed):
        await look_up(Full(), NameServers((server.at,), attempts=1), "gpu1")


@pytest_twisted.ensureDeferred
async def test_a_question_that_is_cancelled_leaves_nothing(running_reactor: Any, server: NameServer) -> None:
    server.answer = lambda question: None
    before = set(running_reactor.getReaders())
    question = Question(running_reactor, server.at, "gpu1", 30)
    question.answer.cancel()
    with pytest.raises(CancelledError):
        await question.answer
    assert set(running_reactor.getReaders()) == before
