"""What carries an ``X-Request-ID``, and whose."""

import json
import re

import pytest

from comfyproxy.testing import ScriptedBackend, Step
from comfyproxy.testing.rig import OK

NEW = re.compile(rb"[0-9a-f]{32}")


def get(*fields: bytes) -> bytes:
    return b"\r\n".join((b"GET / HTTP/1.1", b"Host: a", *fields, b"", b""))


@pytest.fixture
def make(make_rig):
    """Makes rigs that mark what ``--request-id`` says."""

    def make(request_ids, *backends, **settings):
        rig = make_rig(*backends, **settings)
        rig.proxy.request_ids = request_ids
        return rig

    return make


def test_unless_asked_for_requests_and_answers_pass_as_they_are(make):
    rig = make("errors", log="json")
    answer = rig.answer(rig.ask(get(b"X-Request-ID: theirs")))
    assert rig.request().value(b"x-request-id") == b"theirs"
    assert answer.value(b"x-request-id") is None
    rig.ask(get(), client=rig.clients[0])
    assert rig.requests()[1].value(b"x-request-id") is None
    rig.advance(1)
    assert [json.loads(line)["request_id"] for line in rig.logged.splitlines()] == [None, None]


@pytest.mark.parametrize("sent", [b"X-Request-ID: theirs", b"X-Other: 1"])
def test_a_server_gets_an_id_of_ours_in_place_of_a_strangers(make, sent):
    rig = make("servers", log="json")
    answer = rig.answer(rig.ask(get(sent)))
    given = rig.request().value(b"x-request-id")
    assert NEW.fullmatch(given)
    assert answer.value(b"x-request-id") is None
    rig.advance(1)
    assert json.loads(rig.logged)["request_id"] == given.decode()


def test_each_request_has_its_own(make):
    rig = make("servers")
    client = rig.ask(get())
    rig.ask(get(), client=client)
    first, second = (request.value(b"x-request-id") for request in rig.requests())
    assert first != second


@pytest.mark.parametrize(("sent", "kept"), [(b"abc-123", True), (b"<script>", False), (b"x" * 129, False)])
def test_a_trusted_proxys_id_passes_if_it_is_a_plain_one(make, sent, kept):
    rig = make("servers", trusted=("192.0.2.0/24",))
    rig.ask(get(b"X-Request-ID: " + sent))
    assert (rig.request().value(b"x-request-id") == sent) == kept


def test_it_stays_the_same_for_every_attempt(make):
    rig = make("servers", ScriptedBackend([Step(end="close")]), ScriptedBackend([Step(send=OK)]))
    rig.answer(rig.ask(get()))
    first, second = rig.request(0).value(b"x-request-id"), rig.request(1).value(b"x-request-id")
    assert first == second


def test_every_answer_can_have_it_and_only_ours(make):
    theirs = OK.replace(b"\r\n\r\n", b"\r\nX-Request-ID: theirs\r\n\r\n")
    rig = make("answers", ScriptedBackend([Step(send=OK), Step(send=theirs)]))
    client = rig.ask(get())
    rig.ask(get(), client=client)
    given = [request.value(b"x-request-id") for request in rig.requests()]
    assert [answer.value(b"x-request-id") for answer in rig.answers(client, "GET", "GET")] == given


def test_a_websocket_has_it_too(make):
    switched = (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nX-Request-ID: theirs\r\n\r\n"
    )
    rig = make("answers", ScriptedBackend([Step(send=switched)]))
    client = rig.ask(
        get(
            b"Connection: Upgrade",
            b"Upgrade: websocket",
            b"Sec-WebSocket-Version: 13",
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        )
    )
    (answer,) = rig.answers(client, "UPGRADE")
    (request,) = rig.backend.requests
    assert b"X-Request-ID: " + answer.value(b"x-request-id") in request
    assert NEW.fullmatch(answer.value(b"x-request-id"))
    client.reset()
    rig.network.run()


@pytest.mark.parametrize("request_ids", ["errors", "servers", "answers"])
def test_an_answer_of_our_own_always_has_one_and_its_line_in_the_log_the_same(make, request_ids):
    rig = make(request_ids, None, log="json")
    answer = rig.answer(rig.ask(get()))
    rig.advance(1)
    assert answer.value(b"x-request-id").decode() == json.loads(rig.logged)["request_id"]


def test_what_is_refused_where_ids_are_ours_has_no_strangers_id(make):
    rig = make("servers", None)
    answer = rig.answer(rig.ask(get(b"X-Request-ID: theirs")))
    assert NEW.fullmatch(answer.value(b"x-request-id"))
