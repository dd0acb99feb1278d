"""The proxy's own requests: what they are on the wire, what comes of them, and what they say of a backend."""

from dataclasses import replace

import pytest

from comfyproxy.core.balancing.health import Status
from comfyproxy.core.balancing.operations import Ask
from comfyproxy.core.balancing.outliers import EjectionRules
from comfyproxy.core.balancing.pool import HealthRules
from comfyproxy.core.http.headerrules import compile_rules, parse_rule
from comfyproxy.proxy.asking import Question
from comfyproxy.testing import ScriptedBackend, Step
from comfyproxy.testing.rig import OK


class Asking:
    """A rig whose proxy asks."""

    def __init__(self, rig):
        self.rig = rig
        self.replies = []

    def ask(self, method=b"GET", target=b"/queue", body=b"", *, number=0, rules=None, **options):
        rig = self.rig
        ask = Ask(rig.pool.backends[number], method, target, body, **options)
        question = Question(rig.proxy, rig.balancer, ask, self.replies.append, rules)
        question.start(ask.timeout)
        rig.network.run()
        return question

    @property
    def reply(self):
        (reply,) = self.replies
        return reply


@pytest.fixture
def asking(make_rig):
    return lambda *backends, **settings: Asking(make_rig(*backends, **settings))


def scripted(*steps):
    return ScriptedBackend([step if isinstance(step, Step) else Step(send=step) for step in steps])


def test_a_get_is_a_request_without_a_body(asking):
    one = asking(scripted(OK))
    one.ask(fields=b"Accept: x/y\r\n")
    assert one.rig.backend.requests == [b"GET /queue HTTP/1.1\r\nHost: 10.0.0.1:8188\r\nAccept: x/y\r\n\r\n"]
    assert (one.reply.status, one.reply.body, one.reply.why) == (200, b"ok", "")


@pytest.mark.parametrize("body", [b"", b'{"clear": true}'])
def test_a_post_says_its_length_and_type(asking, body):
    one = asking(ScriptedBackend([Step(after=body or b"\r\n\r\n", send=OK)]))
    one.ask(b"POST", b"/queue", body)
    assert one.rig.backend.requests == [
        b"POST /queue HTTP/1.1\r\nHost: 10.0.0.1:8188\r\nContent-Type: application/json\r\nContent-Length: "
        b"%d\r\n\r\n%b" % (len(body), body)
    ]
    assert one.reply.status == 200


def test_the_rules_of_the_route_hold_for_its_fields(asking):
    texts = ["set Authorization: Bearer x", "set Host: {server}", "add X-Client: [{client}]", "remove Accept"]
    rules = compile_rules(parse_rule(text, "request") for text in texts)
    one = asking(scripted(OK))
    one.ask(fields=b"Accept: a\r\n", rules=rules)
    assert one.rig.backend.requests == [
        b"GET /queue HTTP/1.1\r\nHost: 10.0.0.1:8188\r\nAuthorization: Bearer x\r\nX-Client: []\r\n\r\n"
    ]


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\nT: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabcde",
        b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabcde",
        b"HTTP/1.1 200 OK\r\n\r\nabcde",
    ],
)
@pytest.mark.parametrize("piece", [0, 1])
def test_a_reply_has_the_whole_body_however_it_comes(asking, answer, piece):
    backend = ScriptedBackend()
    one = asking(backend)
    one.ask()
    (connection,) = backend.connections
    connection.send(answer, piece)
    one.rig.network.run()
    connection.close()
    one.rig.network.run()
    assert (one.reply.status, one.reply.body) == (200, b"abcde")
    assert one.rig.leases == 0


@pytest.mark.parametrize("status", [204, 404, 500, 503])
def test_every_status_is_a_reply(asking, status):
    one = asking(scripted(b"HTTP/1.1 %d X\r\n%b\r\n" % (status, b"Content-Length: 0\r\n" * (status != 204))))
    one.ask()
    assert one.reply.status == status


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\n" + b"x" * 11,
        b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 11,
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nb\r\n" + b"x" * 11 + b"\r\n0\r\n\r\n",
    ],
)
def test_an_answer_larger_than_the_limit_is_none(asking, answer):
    one = asking(scripted(answer))
    one.ask(limit=10)
    assert (one.reply.status, one.reply.why) == (0, "its answer is larger than 10 octets")
    assert one.rig.leases == 0


def test_an_answer_whose_length_is_too_large_is_not_waited_for(asking):
    one = asking(scripted(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000000\r\n\r\nx"))
    one.ask(limit=1000)
    assert one.reply.status == 0
    assert one.rig.backend.open_connections == []


def test_a_backend_that_refuses_was_not_sent_anything(asking):
    one = asking(None)
    one.ask()
    assert (one.reply.status, one.reply.was_sent) == (0, False)
    assert one.reply.why == "connection refused"


def test_a_backend_that_takes_too_long_is_not_waited_for_and_not_blamed(asking):
    one = asking(ScriptedBackend())
    one.rig.balancer.follow(HealthRules(ejection=EjectionRules(failures=1)))
    one.ask(b"POST", timeout=3)
    one.rig.advance(2.9)
    assert one.replies == []
    one.rig.advance(1)
    assert (one.reply.status, one.reply.was_sent) == (0, True)
    assert one.rig.backend.open_connections == []
    assert one.rig.pool.backends[0].failures == 0


def test_a_backend_that_goes_down_meanwhile_is_not_waited_for(asking):
    one = asking(ScriptedBackend())
    one.ask(b"POST", timeout=120)
    one.rig.advance(30)
    assert one.replies == []
    backend = one.rig.pool.backends[0]
    backend.health = replace(backend.health, status=Status.DOWN)
    one.rig.advance(2)
    assert (one.reply.status, one.reply.was_sent) == (0, True)
    one.replies.clear()
    one.ask(timeout=10)
    one.rig.advance(9)
    assert one.replies == [], "one that was down before may be back"
    one.rig.advance(2)
    assert one.reply.was_sent


def test_a_backend_that_cannot_be_reached_in_time_was_not_sent_anything(asking):
    one = asking(ScriptedBackend())
    one.rig.balancer.follow(HealthRules(ejection=EjectionRules(failures=10)))
    one.rig.network.silent.add("10.0.0.1")
    one.ask(timeout=3)
    one.rig.advance(4)
    assert (one.reply.status, one.reply.was_sent, one.rig.pool.backends[0].failures) == (0, False, 1)


@pytest.mark.parametrize(
    ("answer", "failures"),
    [
        (OK, 0),
        (b"HTTP/1.1 500 X\r\nContent-Length: 0\r\n\r\n", 0),
        (b"HTTP/1.1 503 X\r\nContent-Length: 0\r\n\r\n", 3),
        (b"nonsense", 3),
    ],
)
def test_what_comes_of_it_counts_for_the_backend(asking, answer, failures):
    one = asking(ScriptedBackend([Step(send=answer)] * 3))
    one.rig.balancer.follow(HealthRules(ejection=EjectionRules(failures=10)))
    for _ in range(3):
        one.ask()
    assert one.rig.pool.backends[0].failures == failures


def test_connections_are_kept_for_the_next_question_and_for_clients(asking):
    one = asking(scripted(OK, OK, OK))
    one.ask()
    one.ask()
    assert one.rig.ask(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").received.endswith(b"ok")
    assert len(one.rig.backend.connections) == 1


def test_a_connection_that_the_backend_was_closing_is_replaced(asking):
    one = asking(ScriptedBackend([Step(send=OK), Step(end="reset")], [Step(send=OK)]))
    one.ask()
    one.ask()
    assert [reply.status for reply in one.replies] == [200, 200]
    assert len(one.rig.backend.connections) == 2


def test_what_may_not_be_done_twice_gets_a_connection_of_its_own(asking):
    one = asking(scripted(OK, OK))
    one.ask(b"POST")
    one.ask(b"POST")
    assert len(one.rig.backend.connections) == 2


def test_what_may_not_be_done_twice_is_not(asking):
    one = asking(ScriptedBackend([Step(end="reset")], [Step(send=OK)]))
    one.ask(b"POST")
    assert (one.reply.status, one.reply.was_sent) == (0, True)
    assert len(one.rig.backend.connections) == 1


@pytest.mark.parametrize("version", [1, 2])
def test_the_proxy_protocol_says_that_nobody_is_behind_it(asking, version):
    one = asking(ScriptedBackend([Step(after=b"8188\r\n\r\n", send=OK)] * 2))
    one.rig.pool.backends[0].proxy_protocol = version
    one.ask()
    one.ask()
    (connection,) = one.rig.backend.connections
    local = b"PROXY UNKNOWN\r\n" if version == 1 else b"\r\n\r\n\x00\r\nQUIT\n\x20\x00\x00\x00"
    assert connection.received.startswith(local + b"GET /queue HTTP/1.1\r\n")
    assert connection.received.count(b"QUIT") == version - 1
    assert len(one.replies) == 2


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf"])
def test_who_stops_asking_leaves_nothing(asking, answer):
    one = asking(ScriptedBackend([Step(send=answer)]))
    question = one.ask()
    question.stop()
    one.rig.network.run()
    assert one.rig.leases == 0
    assert one.rig.backend.open_connections == []
    assert one.replies == []


def test_a_101_that_nobody_asked_for_is_no_answer(asking):
    one = asking(scripted(b"HTTP/1.1 101 X\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n"))
    one.ask()
    assert one.reply.status == 0
    assert one.rig.backend.open_connections == []


def test_a_question_takes_no_room_from_clients(asking):
    one = asking(ScriptedBackend())
    question = one.ask()
    backend = one.rig.pool.backends[0]
    assert (backend.leases, backend.exempt) == (1, 1)
    question.stop()
    assert (backend.leases, backend.exempt) == (0, 0)


@pytest.mark.parametrize("is_short_for_long", [False, True])
def test_without_a_descriptor_it_waits_a_moment_and_blames_nobody(asking, is_short_for_long):
    one = asking(scripted(OK))
    one.rig.network.is_short = True
    one.ask()
    assert one.replies == []
    one.rig.network.is_short = is_short_for_long
    one.rig.advance(0.5)
    assert one.reply.status == (0 if is_short_for_long else 200)
    assert one.rig.pool.backends[0].failures == 0


def test_who_stops_while_there_is_no_descriptor_leaves_nothing(asking):
    one = asking(scripted(OK))
    one.rig.network.is_short = True
    one.ask().stop()
    one.rig.advance(1)
    assert one.replies == []


def test_a_large_reply_is_taken_at_once(asking):
    body = b"x" * 20_000_000
    one = asking(scripted(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body))
    one.ask()
    assert one.reply.body == body


def test_what_is_known_to_be_down_is_no_news(asking, caplog):
    one = asking(None)
    one.rig.balancer.follow(HealthRules(probed=True, fall=1))
    one.ask()
    assert caplog.text.count("connection refused") == 1
    one.rig.pool.observed(one.rig.pool.backends[0], False, 0, "no connection")
    one.rig.advance(60)
    one.ask()
    assert caplog.text.count("connection refused") == 1
