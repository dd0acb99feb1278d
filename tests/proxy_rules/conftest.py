"""The rules of an HTTP/1.1 reverse proxy, held by every front; README.md beside this file has them by number.

Each test runs once for each of `FRONTS`. Where a front may do otherwise, `EXCEPTIONS` says so with the
reason. Such a test must then fail, so that the list does not outlive its reasons.

What the proxy sends is read with h11, in both directions: what another program makes of our framing counts.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import h11
import pytest
from twisted.web.server import Site

from comfyproxy.core.balancing.balancer import Balancer
from comfyproxy.proxy.proxy import Proxy
from comfyproxy.testing import BackendConnection, RawClient, Rig
from comfyproxy.testing.rig import daemon
from comfyproxy.web.resource import RoundRobinResource
from comfyproxy.web.streaming import StreamingSite


def embedded(site: type[Site]) -> Callable[..., tuple[Proxy, Site]]:
    """The resource for twisted.web as the root of ``site``."""

    def front(network: Any, balancer: Balancer, **settings: Any) -> tuple[Proxy, Site]:
        resource = RoundRobinResource(balancer, reactor=network, **settings)
        return resource.proxy, site(resource, reactor=network)

    return front


FRONTS: dict[str, Callable[..., Any]] = {
    "daemon": daemon,
    "site": embedded(Site),
    "streaming": embedded(StreamingSite),
}


@dataclass(frozen=True)
class Exempt:
    """Tests (by name, ``*`` and all) that ``fronts`` do not pass, and why that is right.

    With ``instead`` they are not run: that file tests the same there.
    """

    fronts: tuple[str, ...]
    tests: str
    reason: str
    instead: str = ""


EMBEDDED = ("site", "streaming")
STOCK = ("site",)
FRAMED = "twisted.web frames bodies itself, and drops their trailers"
SPELT = "twisted.web keeps fields by their names, in capitals of its own and repeats together"
OLD = "twisted.web answers HTTP/1.0 as HTTP/1.0, and closes"
TIMED = "heads are timed by the Site: it closes an idle connection after its own timeout, without a word"
WHOLE = "a stock Site asks nobody before the body is there whole"
STAR = "twisted.web answers for * itself"
VALID = "test_a_valid_request_is_passed_on_as_it_is_meant*"

EXCEPTIONS = [
    Exempt(
        EMBEDDED,
        "test_an_invalid_request_is_refused*",
        "what twisted.web itself refuses gets a bare 400, and some it mends",
        instead="tests/web/test_corpus.py",
    ),
    Exempt(EMBEDDED, VALID + "http-1.0*", OLD),
    Exempt(EMBEDDED, VALID + "-008-*", "twisted.web knows no other minor versions"),
    Exempt(EMBEDDED, VALID + "-075-*", "twisted.web takes no backslash in chunk extensions"),
    Exempt(EMBEDDED, VALID + "-101-*", STAR),
    Exempt(EMBEDDED, VALID + "-144-*", OLD),
    Exempt(STOCK, VALID + "-120-*", "twisted.web has answered 100 by then"),
    Exempt(EMBEDDED, "test_rule_08_a_head_that_does_not_come_to_an_end_is_408*", TIMED),
    Exempt(EMBEDDED, "test_rule_08_a_head_that_trickles_in_has_no_more_time*", TIMED),
    Exempt(EMBEDDED, "test_rule_08_a_connection_that_says_nothing_is_closed_without_a_word*", TIMED),
    Exempt(STOCK, "test_rule_08_a_body_too_large_by_its_length_is_refused_before_it_is_sent*", WHOLE),
    Exempt(STOCK, "test_rule_08_a_body_that_stops_coming_is_408*", WHOLE),
    Exempt(STOCK, "test_rule_09_the_body_of_a_request_that_is_refused_at_once_is_not*", WHOLE),
    Exempt(STOCK, "test_rule_10_expect_passes_and_so_does_the_100*", WHOLE),
    Exempt(STOCK, "test_rule_10_an_expectation_may_be_answered_without_the_body*", WHOLE),
    Exempt(EMBEDDED, "test_rule_12_*-Expect: *", "without a body, twisted.web meets the expectation"),
    Exempt(EMBEDDED, "test_rule_13_order_case_and_repeats_survive*", SPELT),
    Exempt(EMBEDDED, "test_rule_16_a_body_keeps_its_chunks_and_trailers*", FRAMED),
    Exempt(EMBEDDED, "test_rule_20_a_client_of_1_0_gets_none*", OLD),
    Exempt(EMBEDDED, "test_rule_21_chunks_go_on_as_they_are_with_their_trailers*", FRAMED),
    Exempt(STOCK, "test_rule_24_*", WHOLE),
    Exempt(
        ("streaming",),
        "test_rule_24_an_early_answer_streams_while_the_request_does*",
        "twisted.web must know at the head whether it closes, so it closes",
    ),
    Exempt(EMBEDDED, "test_rule_25_a_client_of_1_0_may_keep_its_connection*", OLD),
    Exempt(EMBEDDED, "test_rule_25_order_case_and_repeats_survive*", SPELT),
    Exempt(STOCK, "test_rule_26_who_leaves_in_the_middle_of_its_body*", WHOLE),
    Exempt(STOCK, "test_a_body_that_is_under_way_is_not_sent_to_another_server*", WHOLE),
    Exempt(STOCK, "test_a_body_larger_than_a_router_takes_is_413*", WHOLE),
    Exempt(STOCK, "test_a_body_waits_for_a_*", WHOLE),
    Exempt(
        EMBEDDED,
        "test_small_answers_to_a_client_that_does_not_read_stop_the_pipeline*",
        "twisted.web answers all that it has read ahead, some 64 KiB of requests",
    ),
]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    elsewhere = []
    for item in items:
        for one in EXCEPTIONS:
            if any(f"[{name}" in item.name for name in one.fronts) and fnmatchcase(item.name, one.tests):
                if one.instead:
                    elsewhere.append(item)
                else:
                    item.add_marker(pytest.mark.xfail(reason=one.reason, strict=True))
    config.hook.pytest_deselected(items=elsewhere)
    items[:] = [item for item in items if item not in elsewhere]


@pytest.fixture(params=FRONTS, scope="session")
def front(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """Each front in turn."""
    return FRONTS[request.param]


@dataclass
class Message:
    """A request or an answer as h11 reads it; ``complete`` says that its end was seen."""

    start: bytes
    fields: list[tuple[bytes, bytes]]
    status: int = 0
    body: bytes = b""
    trailers: tuple[tuple[bytes, bytes], ...] = ()
    complete: bool = False

    def values(self, name: bytes) -> list[bytes]:
        """The values of every field of that name."""
        return [value for field, value in self.fields if field.lower() == name.lower()]

    def value(self, name: bytes) -> bytes | None:
        """The value of the only field of that name, or ``None``."""
        values = self.values(name)
        assert len(values) <= 1, f"{name!r} is there {len(values)} times"
        return values[0] if values else None

    @property
    def names(self) -> list[bytes]:
        """The names of all fields, in lower case, in order."""
        return [name.lower() for name, _ in self.fields]


def _messages(parser: h11.Connection) -> Iterator[Message]:
    message: Message | None = None
    while True:
        try:
            event = parser.next_event()
        except h11.RemoteProtocolError as error:
            if message is None or "without sending complete message" not in str(error):
                raise
            event = h11.NEED_DATA
        if isinstance(event, h11.Request):
            message = Message(event.method + b" " + event.target, list(event.headers.raw_items()))
        elif isinstance(event, h11.InformationalResponse):
            yield Message(
                bytes(event.reason), list(event.headers.raw_items()), event.status_code, complete=True
            )
            if event.status_code == 101:
                return
        elif isinstance(event, h11.Response):
            message = Message(bytes(event.reason), list(event.headers.raw_items()), event.status_code)
        elif isinstance(event, h11.Data):
            assert message is not None
            message.body += bytes(event.data)
        elif isinstance(event, h11.EndOfMessage):
            assert message is not None
            message.trailers = tuple(event.headers.raw_items())
            message.complete = True
            yield message
            return
        elif event in (h11.NEED_DATA, h11.PAUSED) or isinstance(event, h11.ConnectionClosed):
            if message is not None:
                yield message
            return


def _handshake(method: str) -> tuple[list[tuple[str, str]], str]:
    if method != "UPGRADE":
        return [("Host", "a")], method
    return [("Host", "a"), ("Connection", "upgrade"), ("Upgrade", "websocket")], "GET"


class RuleRig(Rig):
    """A rig that reads what its peers received."""

    def answers(self, client: RawClient, *methods: str) -> list[Message]:
        """What ``client`` got as the answers, 1xx included, to requests made with ``methods``.

        ``UPGRADE`` is a GET that asks for a WebSocket. Nothing else may have come.
        """
        data, answers = client.received, []
        for method in methods or ("GET",):
            parser = h11.Connection(h11.CLIENT, max_incomplete_event_size=1_000_000)
            headers, method = _handshake(method)
            parser.send(h11.Request(method=method, target="/", headers=headers))
            parser.send(h11.EndOfMessage())
            parser.receive_data(data)
            if client.ended == "closed":
                parser.receive_data(b"")
            answers += _messages(parser)
            data = parser.trailing_data[0]
        assert data == b"", f"behind the last answer came {data[:200]!r}"
        return answers

    def answer(self, client: RawClient, method: str = "GET") -> Message:
        """The only answer that ``client`` got, complete."""
        (answer,) = self.answers(client, method)
        assert answer.complete, answer
        return answer

    def requests(self, number: int = 0) -> list[Message]:
        """What a backend got, over all its connections."""
        backend = self.backends[number]
        assert backend is not None
        return [one for connection in backend.connections for one in _requests(connection)]

    def request(self, number: int = 0) -> Message:
        """The only request that a backend got, complete."""
        (request,) = self.requests(number)
        assert request.complete, request
        return request


def _requests(connection: BackendConnection) -> Iterator[Message]:
    data = connection.received
    while data:
        parser = h11.Connection(h11.SERVER, max_incomplete_event_size=1_000_000)
        parser.receive_data(data)
        yield from _messages(parser)
        if parser.their_state is not h11.DONE and parser.their_state is not h11.MIGHT_SWITCH_PROTOCOL:
            return
        data = parser.trailing_data[0]


@pytest.fixture(scope="session")
def fronts() -> dict[str, Callable[..., Any]]:
    """All fronts, for a test that chooses by itself."""
    return FRONTS


@pytest.fixture
def make_rig(front: Callable[..., Any]) -> Iterator[Callable[..., RuleRig]]:
    """Makes rigs with this front; at the end nothing may be left of them: no lease, connection or timer."""
    rigs: list[RuleRig] = []

    def make(*backends: Any, **settings: Any) -> RuleRig:
        rigs.append(RuleRig(*backends, **{"front": front} | settings))
        return rigs[-1]

    yield make
    assert [left for rig in rigs for left in rig.close()] == []


@pytest.fixture
def rig(make_rig: Callable[..., RuleRig]) -> RuleRig:
    """A rig with one backend that answers every head."""
    return make_rig()
