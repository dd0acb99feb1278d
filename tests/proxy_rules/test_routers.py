"""A router may answer by itself, or take several steps before it decides, whichever front the client has."""

import pytest
from twisted.internet.protocol import ClientFactory

from comfyproxy.core.balancing.operations import Ask, AskAddress
from comfyproxy.core.balancing.routing import Default, Join, NeedBody, Operate, Pin, Refuse, Respond
from comfyproxy.proxy.draining import Work
from comfyproxy.testing import ScriptedBackend, Step
from comfyproxy.testing.rig import OK
from tests.proxy.websocket_peers import Client

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\n"


class Router:
    """Decides by ``decide``, which gets the head and the body."""

    drop = frozenset()
    message_key = None

    def __init__(self, decide):
        self.decide = decide

    def route(self, head, body, now):
        return self.decide(head, body)

    def place(self, head, body, backend, now):
        return None

    def learn(self, answer, body, backend, now):
        raise AssertionError("nothing was to be watched")

    def cookies(self, value):
        return value


def returning(decision, *steps, seen=None):
    """An operation that takes ``steps``, puts what came of them into ``seen`` and returns ``decision``."""
    for step in steps:
        came = yield step
        if seen is not None:
            seen.append(came)
    return decision


def operating(decision, *steps, seen=None, outlasts=False):
    return Router(lambda head, body: Operate(returning(decision, *steps, seen=seen), outlasts))


@pytest.fixture
def rig_with(make_rig):
    """Makes a rig whose router decides so; its backends are silent unless there are others."""

    def make(decide, *backends, **settings):
        router = decide if isinstance(decide, Router) else Router(decide)
        return make_rig(*(backends or (ScriptedBackend(),)), router=router, **settings)

    return make


def test_a_router_may_answer_by_itself(rig_with):
    rig = rig_with(lambda head, body: Respond(201, b'{"a": 1}', fields=b"X-Own: 1\r\n"))
    client = rig.ask(GET + GET)
    first, second = client.received.split(b"HTTP/1.1 201 Created\r\n")[1:]
    assert first.endswith(b'\r\n\r\n{"a": 1}')
    assert b"Content-Type: application/json; charset=utf-8\r\nContent-Length: 8\r\nX-Own: 1\r\n" in first
    assert b"\r\nDate: " in first
    assert second == first
    assert not client.ended
    assert rig.backend.connections == []


def test_an_operation_decides_after_its_steps(rig_with):
    backend = ScriptedBackend([Step(send=OK)])
    seen = []
    rig = rig_with(lambda head, body: None, backend)
    ask = Ask(rig.pool.backends[0], b"GET", b"/queue")
    rig.balancer.router.decide = lambda head, body: Operate(
        returning(Respond(200, b"done"), ask, AskAddress(), seen=seen)
    )
    client = rig.ask(GET)
    assert client.received.endswith(b"\r\n\r\ndone")
    assert seen[0].status == 200
    assert seen[0].body == b"ok"
    assert seen[1] == b"192.0.2.1"


def test_an_operation_may_choose_a_backend_which_gets_the_body(rig_with):
    backends = [ScriptedBackend([Step(after=b"body", send=OK)]) for _ in range(2)]
    rig = rig_with(lambda head, body: None, *backends)
    target = rig.pool.backends[1]
    rig.balancer.router.decide = lambda head, body: (
        NeedBody(10) if body is None else Operate(returning(Pin(target)))
    )
    client = rig.ask(POST + b"body")
    assert client.received.endswith(b"ok")
    assert backends[1].requests[0].endswith(b"\r\n\r\nbody")
    assert backends[0].requests == []


def test_a_body_that_nobody_asked_for_streams_after_the_operation(rig_with):
    backend = ScriptedBackend([Step(after=b"body", send=OK)])
    rig = rig_with(operating(Default()), backend)
    assert rig.ask(POST + b"body").received.endswith(b"ok")


def test_an_operation_may_refuse(rig_with):
    rig = rig_with(operating(Refuse(403, "Not you.")))
    assert b" 403 " in rig.ask(GET).received


def test_an_operation_that_raises_is_500_and_logged(rig_with, flush_logged_errors):
    def failing():
        yield AskAddress()
        raise ZeroDivisionError

    rig = rig_with(lambda head, body: Operate(failing()))
    assert b" 500 " in rig.ask(GET).received
    assert len(flush_logged_errors(ZeroDivisionError)) == 1


def test_an_operation_that_decides_nothing_a_router_may_is_500(rig_with, flush_logged_errors):
    rig = rig_with(operating(None))
    assert b" 500 " in rig.ask(GET).received
    assert len(flush_logged_errors(TypeError)) == 1


class Closed(list):
    def operation(self, *steps):
        try:
            for step in steps:
                self.append((yield step))
        except GeneratorExit:
            self.append("closed")
            raise
        self.append("done")
        return Respond(200, b"")


@pytest.mark.parametrize("outlasts", [False, True])
def test_a_client_that_leaves_ends_an_operation_that_does_not_outlast_it(rig_with, outlasts):
    rig = rig_with(lambda head, body: None)
    closed = Closed()
    ask = Ask(rig.pool.backends[0], b"POST", b"/prompt", b"{}")
    rig.balancer.router.decide = lambda head, body: Operate(closed.operation(ask), outlasts)
    client = rig.ask(GET)
    client.close()
    rig.network.run()
    (connection,) = rig.backend.connections
    if outlasts:
        assert closed == []
        connection.send(OK)
        rig.network.run()
        assert [getattr(one, "status", one) for one in closed] == [200, "done"]
    else:
        assert closed == ["closed"]
        assert connection.ended
    assert rig.leases == 0


def test_a_long_answer_goes_out_as_the_client_takes_it(rig_with):
    body = b"x" * 3_000_000
    rig = rig_with(lambda head, body_: Respond(200, body), log="json")
    client = rig.client()
    client.pause()
    rig.ask(GET, client=client)
    assert rig.logged == b""
    assert len(client.transport.line.incoming.data) <= 300_000
    client.resume()
    rig.network.run()
    assert client.received.endswith(b"\r\n\r\n" + body)
    rig.advance(1)
    assert b'"sent": 3000000' in rig.logged


def test_who_has_done_the_work_is_in_the_log(rig_with):
    rig = rig_with(lambda head, body: None, log="routing")
    rig.balancer.router.decide = lambda head, body: Respond(200, b"", backend=rig.pool.backends[0])
    rig.ask(GET)
    rig.advance(1)
    assert rig.logged == b"[LoadBalancer] Routing request to http://10.0.0.1:8188 (0/1)\n"


@pytest.mark.parametrize(("method", "status"), [(b"HEAD", 200), (b"GET", 204), (b"GET", 304)])
def test_an_answer_without_a_body_has_none(rig_with, method, status):
    rig = rig_with(lambda head, body: Respond(status, b"ok"))
    client = rig.ask(GET.replace(b"GET", method))
    assert client.received.endswith(b"\r\n\r\n")
    assert (b"Content-Length: 2" in client.received) == (method == b"HEAD")


def test_a_router_that_raises_is_500_and_logged(rig_with, flush_logged_errors):
    rig = rig_with(lambda head, body: 1 / 0)
    assert b" 500 " in rig.ask(GET).received
    assert len(flush_logged_errors(ZeroDivisionError)) == 1


def test_a_long_answer_arrives_whole(rig_with):
    body = bytes(range(256)) * 12_000
    rig = rig_with(lambda head, body_: Respond(200, body))
    answer = rig.answer(rig.ask(GET))
    assert answer.body == body
    assert answer.value(b"content-length") == b"%d" % len(body)


def test_a_client_that_leaves_in_the_middle_of_a_long_answer_leaves_nothing(rig_with):
    rig = rig_with(lambda head, body: Respond(200, b"x" * 3_000_000))
    client = rig.client()
    client.pause()
    rig.ask(GET, client=client)
    client.reset()
    rig.network.run()
    assert rig.proxy.connections == set()


@pytest.mark.parametrize("size", [10, 200_000])
def test_an_answer_that_comes_before_the_request_is_complete_is_the_last(rig_with, size):
    rig = rig_with(lambda head, body: Respond(200, b"y" * size))
    client = rig.ask(POST + b"bo")
    rig.ask(b"dy", client=client)
    rig.advance(3)
    answer = rig.answer(client)
    assert (answer.status, answer.body) == (200, b"y" * size)
    if answer.value(b"connection") == b"close":
        assert client.is_gone


class Session:
    """Remembers what it is told, and echoes what its client says."""

    client_id = "c"
    wanted = ()

    def __init__(self):
        self.clients = []

    def attach(self, client, now):
        self.clients.append(client)

    def detach(self, client, now):
        self.clients.remove(client)

    def from_client(self, client, payload, is_binary, now):
        client.send(payload, is_binary)


def websocket(rig):
    client = Client()
    rig.clients.append(client)
    factory = ClientFactory.forProtocol(lambda: client)
    factory.noisy = False
    rig.network.connectTCP("127.0.0.1", 8080, factory)
    rig.network.run()
    return client


def test_a_websocket_may_be_a_session_s(rig_with):
    session = Session()
    rig = rig_with(lambda head, body: Join(session, b"Set-Cookie: a=1\r\n"))
    client = websocket(rig)
    assert client.response.status_code == 101
    assert client.response.headers["Set-Cookie"] == "a=1"
    client.say("hello")
    client.say(b"x" * 300_000)
    rig.network.run()
    assert client.messages == ["hello", b"x" * 300_000]
    assert [connection.work for connection in rig.proxy.connections] == [Work.EVENTS]
    client.say_goodbye(1000)
    rig.network.run()
    assert client.closed_with[0] == 1000
    assert session.clients == []
    assert rig.proxy.connections == set()


def test_an_operation_may_give_the_websocket_to_a_session(rig_with):
    session = Session()
    rig = rig_with(operating(Join(session), AskAddress()))
    client = websocket(rig)
    client.say("hello")
    rig.network.run()
    assert client.messages == ["hello"]


def test_who_asks_for_no_websocket_gets_none(rig_with):
    rig = rig_with(lambda head, body: Join(Session()))
    assert rig.answer(rig.ask(GET)).status == 400
