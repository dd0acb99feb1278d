"""Rules 12 to 15 where the configuration has a say: what backends are told, and rules for fields."""

from dataclasses import replace

import pytest

from comfyproxy.core.balancing.routes import RouteTable
from comfyproxy.core.http.headerrules import Side, compile_rules, parse_rule
from comfyproxy.core.http.headers import WRITABLE
from comfyproxy.core.http.proxyprotocol import V1, V2, ProxyHeaderReader
from comfyproxy.core.http.websocket import accept_value
from comfyproxy.testing import ScriptedBackend, Step
from comfyproxy.testing.rig import OK

HANDSHAKE = (
    b"GET /ws HTTP/1.1\r\nHost: a.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


def get(*lines, target=b"/"):
    return b"\r\n".join([b"GET " + target + b" HTTP/1.1", b"Host: a.example", *lines, b"", b""])


def with_rules(rig, request=(), response=()):
    """``rig``, whose only route has these rules from now on."""

    def compiled(texts, side: Side):
        return compile_rules(parse_rule(text, side) for text in texts)

    (route,) = rig.proxy.routes.routes
    rules = {
        "request_rules": compiled(request, "request"),
        "response_rules": compiled(response, "response"),
    }
    rig.proxy.routes = RouteTable([replace(route, **rules)])
    return rig


def answering(*lines):
    """A backend that answers with these lines."""
    return ScriptedBackend(
        [Step(send=b"\r\n".join([b"HTTP/1.1 200 OK", *lines, b"Content-Length: 0", b"", b""]))]
    )


def test_rule_14_backends_are_told_in_the_fields_that_are_asked_for(rig):
    rig.proxy.forwarding = WRITABLE
    rig.ask(get(b"Forwarded: for=9.9.9.9", b"X-Forwarded-Port: 9"))
    request = rig.request()
    assert request.value(b"forwarded") == b'for=192.0.2.1;host="a.example";proto=http'
    assert request.value(b"x-forwarded-port") == b"80"
    assert request.value(b"x-forwarded-for") == b"192.0.2.1"


def test_rule_14_backends_may_be_told_nothing(rig):
    rig.proxy.forwarding = ()
    rig.ask(get(b"X-Forwarded-For: 9.9.9.9", b"X-Real-IP: 9.9.9.9", b"Forwarded: for=9.9.9.9"))
    assert sorted(rig.request().names) == [b"host", b"via"]


def test_rule_14_the_log_has_the_client_that_trusted_proxies_name(make_rig):
    rig = make_rig(trusted=("192.0.2.1",), log="combined")
    rig.ask(get(b"X-Forwarded-For: 9.9.9.9, 203.0.113.9"))
    rig.ask(get(b"X-Forwarded-For: 9.9.9.9"), client=rig.client("192.0.2.2"))
    rig.proxy.log.flush()
    assert [line.split()[0] for line in rig.logged.splitlines()] == [b"203.0.113.9", b"192.0.2.2"]


def test_rules_change_the_fields_of_requests(rig):
    with_rules(rig, ["set X-Who: {client} by {peer}, {scheme}://{host} on {server}", "remove X-Debug"])
    rig.ask(get(b"X-Debug: 1", b"x_debug: 2", b"X-WHO: me", b"X-A: 1"))
    request = rig.request()
    assert request.value(b"x-who") == b"192.0.2.1 by 192.0.2.1, http://a.example on 10.0.0.1:8188"
    assert request.value(b"x-a") == b"1"
    assert {b"x-debug", b"x_debug"}.isdisjoint(request.names)


def test_rules_have_the_last_word_on_what_we_write(rig):
    with_rules(rig, ["set X-Forwarded-Proto: https", "remove X-Real-IP", "set Host: b.example"])
    rig.ask(get())
    request = rig.request()
    assert request.value(b"x-forwarded-proto") == b"https"
    assert b"x-real-ip" not in request.names
    assert (request.value(b"host"), request.value(b"x-forwarded-host")) == (b"b.example", b"a.example")


def test_a_connection_field_does_not_name_away_what_a_rule_sets(rig):
    with_rules(rig, ["set X-User: admin"])
    rig.ask(get(b"Connection: X-User", b"X-User: me"))
    assert rig.request().value(b"x-user") == b"admin"


def test_a_request_has_one_id_in_all_of_its_rules(rig):
    with_rules(rig, ["set X-Request-ID: {request_id}", "add X-Trace: {request_id}"])
    rig.ask(get())
    rig.ask(get(b"X-Request-ID: given-1"))
    made, given = rig.requests()
    assert made.value(b"x-request-id") == made.value(b"x-trace") != b""
    assert given.value(b"x-request-id") == given.value(b"x-trace") == b"given-1"


def test_rules_change_the_fields_of_answers(make_rig):
    rig = make_rig(answering(b"Server: gpu/1", b"X-A: 1", b"Set-Cookie: a=1"))
    with_rules(rig, response=["remove Server", "set X-A: 2", "add Vary: Origin", "set X-Server: {server}"])
    answer = rig.answer(rig.ask(get()))
    assert answer.value(b"x-a") == b"2"
    assert answer.value(b"vary") == b"Origin"
    assert answer.value(b"x-server") == b"10.0.0.1:8188"
    assert answer.value(b"set-cookie") == b"a=1"
    assert answer.value(b"content-length") == b"0"
    assert b"server" not in answer.names


def test_rules_for_answers_are_not_for_our_own(make_rig):
    rig = with_rules(make_rig(None), response=["set Cache-Control: public", "remove Server"])
    answer = rig.answer(rig.ask(get()))
    assert (answer.status, answer.value(b"cache-control")) == (503, b"no-store")
    assert answer.value(b"server") == b"comfyproxy"


def test_rules_are_for_handshakes_too(make_rig):
    answer = (
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nServer: gpu\r\n"
        b"Sec-WebSocket-Accept: " + accept_value(b"dGhlIHNhbXBsZSBub25jZQ==") + b"\r\n\r\n"
    )
    rig = make_rig(ScriptedBackend([Step(send=answer)]))
    with_rules(rig, ["set X-A: 1"], ["remove Server"])
    client = rig.ask(HANDSHAKE)
    assert rig.request().value(b"x-a") == b"1"
    (switched,) = rig.answers(client, "UPGRADE")
    assert switched.status == 101
    assert b"server" not in switched.names


def announcing(make_rig, version, **settings):
    """A rig with a server that wants a PROXY header, and answers what comes behind."""
    step = Step(after=b"GET / HTTP/1.1\r\nHost: a.example\r\n", send=OK)
    rig = make_rig(ScriptedBackend([step]), **settings)
    for backend in rig.pool.backends:
        backend.proxy_protocol = version
    return rig


def announced(connection):
    """What the header of a backend's connection says, and the requests behind it."""
    reader = ProxyHeaderReader()
    return reader.feed(connection.received), reader.rest


@pytest.mark.parametrize("version", [V1, V2])
def test_a_connection_to_a_server_begins_with_whose_it_is(make_rig, version):
    rig = announcing(make_rig, version)
    client = rig.ask(get(), client=rig.client("192.0.2.7"))
    header, rest = announced(rig.backend.connections[0])
    assert header.source == ("192.0.2.7", client.transport.getHost().port)
    assert header.destination == (client.transport.getPeer().host, client.transport.getPeer().port)
    assert rest.startswith(b"GET / HTTP/1.1\r\n")
    assert client.received.startswith(b"HTTP/1.1 200 ")


def test_a_connection_is_used_again_by_its_own_client_alone(make_rig):
    rig = announcing(make_rig, V2)
    one, other = rig.client("192.0.2.7"), rig.client("192.0.2.8")
    for client in (one, other, one, other):
        rig.ask(get(), client=client)
    assert [connection.received.count(b"GET /") for connection in rig.backend.connections] == [2, 2]
    hosts = [announced(connection)[0].source.host for connection in rig.backend.connections]
    assert hosts == ["192.0.2.7", "192.0.2.8"]


def test_a_connection_carries_the_client_that_a_trusted_proxy_names(make_rig):
    rig = announcing(make_rig, V1, trusted=("192.0.2.1",))
    client = rig.client("192.0.2.1")
    for told in (b"203.0.113.5", b"203.0.113.6", b"203.0.113.5"):
        rig.ask(get(b"X-Forwarded-For: " + told), client=client)
    headers = [connection.received.partition(b"\r\n")[0] for connection in rig.backend.connections]
    port = client.transport.getPeer().port
    assert headers == [
        b"PROXY TCP4 203.0.113.5 127.0.0.1 0 %d" % port,
        b"PROXY TCP4 203.0.113.6 127.0.0.1 0 %d" % port,
    ]
