"""Clients that stay with their server: by a cookie of the proxy's, or because their requests are hashed."""

import pytest

from comfyproxy.core.balancing.backend import AdminState
from comfyproxy.core.balancing.selection.balance import parse_balance
from comfyproxy.core.balancing.stickiness import StickyRouter
from comfyproxy.core.http.cookie import BackendCookie
from comfyproxy.testing import ScriptedBackend, Step
from comfyproxy.testing.rig import OK

WEBSOCKET = (
    b"GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)
SWITCHED = (
    b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
)


def get(*lines, target="/"):
    return "\r\n".join((f"GET {target} HTTP/1.1", "Host: a", *lines, "", "")).encode()


def always():
    return ScriptedBackend([Step(send=OK)] * 20)


@pytest.fixture
def sticky(make_rig):
    """Makes a rig whose clients stay with their servers."""

    def make(*backends, secret="", **settings):
        rig = make_rig(*backends, **settings)
        rig.balancer.router = StickyRouter(rig.pool, BackendCookie(secret=secret))
        return rig

    return make


def set_cookies(answer):
    return [value.decode() for name, value in answer.fields if name.lower() == b"set-cookie"]


def cookie_of(answer):
    """The cookie that an answer sets, without its attributes."""
    (line,) = set_cookies(answer)
    return line.partition(";")[0]


def asked(rig):
    """How many requests each server has got."""
    return [len(backend.requests) for backend in rig.backends]


@pytest.mark.parametrize("secret", ["", "secret"])
def test_a_client_gets_a_cookie_and_stays_with_its_server(sticky, secret):
    rig = sticky(always(), always(), secret=secret)
    answer = rig.answer(rig.ask(get()))
    cookie = cookie_of(answer)
    for _ in range(5):
        again = rig.answer(rig.ask(get(f"Cookie: theme=dark; {cookie}")))
        assert set_cookies(again) == []
    assert asked(rig) == [6, 0]


def test_servers_do_not_see_the_cookie(sticky):
    rig = sticky(always())
    cookie = cookie_of(rig.answer(rig.ask(get())))
    rig.ask(get(f"Cookie: theme=dark; {cookie}; lang=en"))
    rig.ask(get(f"Cookie: {cookie}"))
    first, second, third = rig.backend.requests
    assert b"ookie" not in first + third
    assert b"Cookie: theme=dark; lang=en\r\n" in second


def test_a_client_whose_server_cannot_be_reached_gets_another_and_its_cookie(sticky):
    rig = sticky(None, always())
    other = cookie_of(rig.answer(rig.ask(get())))
    lost = f"comfyproxy={rig.pool.backends[0].fingerprint}"
    answer = rig.answer(rig.ask(get(f"Cookie: {lost}")))
    assert (answer.status, cookie_of(answer)) == (200, other)
    assert rig.leases == 0


def test_a_client_whose_server_is_out_of_use_gets_another_and_its_cookie(sticky):
    rig = sticky(always(), always())
    cookie = cookie_of(rig.answer(rig.ask(get())))
    rig.pool.set_admin(rig.pool.backends[0], AdminState.DRAIN, 0)
    rig.ask(get(f"Cookie: {cookie}"))
    assert asked(rig) == [2, 0]
    rig.pool.set_admin(rig.pool.backends[0], AdminState.MAINT, 0)
    answer = rig.answer(rig.ask(get(f"Cookie: {cookie}")))
    assert cookie_of(answer) == f"comfyproxy={rig.pool.backends[1].fingerprint}"


@pytest.mark.parametrize("proto", ["http", "https"])
def test_the_cookie_of_a_client_that_uses_tls_is_for_tls(sticky, proto):
    rig = sticky(always(), trusted=("192.0.2.0/24",))
    answer = rig.answer(rig.ask(get(f"X-Forwarded-Proto: {proto}")))
    (line,) = set_cookies(answer)
    assert line.endswith("; Secure") is (proto == "https")


def test_a_websocket_gets_a_cookie_too(sticky):
    rig = sticky(ScriptedBackend([Step(send=SWITCHED)]))
    client = rig.ask(WEBSOCKET + b"\r\n")
    assert b"Set-Cookie: comfyproxy=" in client.received.partition(b"\r\n\r\n")[0]


@pytest.mark.parametrize(
    ("balance", "lines", "target"),
    [
        ("ip-hash", [], "/"),
        ("hash:header=X-User", ["X-User: alice"], "/"),
        ("hash:cookie=user", ["Cookie: user=alice"], "/"),
        ("hash:query=user", [], "/?user=alice"),
        ("hash:uri", [], "/same"),
    ],
)
def test_requests_of_the_same_key_go_to_the_same_server(make_rig, balance, lines, target):
    rig = make_rig(*(always() for _ in range(4)))
    rig.balancer.balance_by(parse_balance(balance))
    for _ in range(8):
        rig.ask(get(*lines, target=target))
    assert sorted(asked(rig)) == [0, 0, 0, 8]


def test_clients_are_hashed_by_the_address_that_a_trusted_proxy_tells(make_rig):
    rig = make_rig(*(always() for _ in range(4)), trusted=("192.0.2.0/24",))
    rig.balancer.balance_by(parse_balance("ip-hash"))
    for number in range(20):
        rig.ask(get(f"X-Forwarded-For: 198.51.100.{number}"))
    assert sum(count > 0 for count in asked(rig)) >= 3


def test_requests_without_the_key_take_turns(make_rig):
    rig = make_rig(*(always() for _ in range(4)))
    rig.balancer.balance_by(parse_balance("hash:header=X-User"))
    for _ in range(8):
        rig.ask(get())
    assert asked(rig) == [2, 2, 2, 2]
