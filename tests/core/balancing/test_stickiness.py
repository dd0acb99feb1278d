"""Sticky cookies for any HTTP service: who gets one, where it leads, and when it is replaced."""

import pytest

from comfyproxy.core.balancing.backend import AdminState, Backend, Lease
from comfyproxy.core.balancing.changes import diff
from comfyproxy.core.balancing.pool import HealthRules, Pool
from comfyproxy.core.balancing.routing import Default, Pin
from comfyproxy.core.balancing.stickiness import StickyRouter
from comfyproxy.core.configuration.addresses import Address
from comfyproxy.core.http.cookie import BackendCookie
from comfyproxy.core.http.http1 import RequestHead, parse_request_head, parse_response_head


def request(*cookies: str) -> RequestHead:
    lines = [f"Cookie: {cookie}" for cookie in cookies]
    return parse_request_head("\r\n".join(("GET / HTTP/1.1", "Host: here", *lines, "", "")).encode())


class Sticky:
    """A pool of three servers and its router."""

    def __init__(self, secret: str = "", rules: HealthRules | None = None) -> None:
        addresses = [Address("http", host, 8000) for host in "abc"]
        self.pool = Pool("llm", addresses, rules=rules or HealthRules())
        self.router = StickyRouter(self.pool, BackendCookie(secret=secret))

    def backend(self, host: str) -> Backend:
        return next(one for one in self.pool.backends if one.address.host == host)

    def cookie(self, host: str) -> str:
        """The cookie that a client has who was sent to that server."""
        rewrite = self.router.place(request(), None, self.backend(host), 0)
        assert rewrite is not None
        return rewrite.answer_fields.decode().removeprefix("Set-Cookie: ").partition(";")[0]

    def goes_to(self, *cookies: str) -> str | None:
        """The server of a client with these cookies, ``None`` for any."""
        decision = self.router.route(request(*cookies), None, 0)
        if isinstance(decision, Pin):
            assert not decision.strict
            return decision.backend.address.host
        assert isinstance(decision, Default)
        return None

    def gets_cookie(self, host: str, *cookies: str) -> bool:
        """Whether a client with these cookies gets another one when it is sent to that server."""
        return self.router.place(request(*cookies), None, self.backend(host), 0) is not None


@pytest.fixture(params=["", "secret"], ids=["opaque", "signed"])
def sticky(request: pytest.FixtureRequest) -> Sticky:
    return Sticky(request.param)


def test_client_without_a_cookie_goes_anywhere_and_gets_one(sticky: Sticky) -> None:
    assert sticky.goes_to() is None
    assert sticky.goes_to("theme=dark") is None
    assert sticky.gets_cookie("b")
    assert sticky.gets_cookie("b", "theme=dark")


def test_client_with_a_cookie_stays_and_gets_no_other(sticky: Sticky) -> None:
    assert sticky.goes_to(f"theme=dark; {sticky.cookie('b')}") == "b"
    assert not sticky.gets_cookie("b", sticky.cookie("b"))


def test_cookie_is_kept_to_tls_where_the_client_uses_it(sticky: Sticky) -> None:
    rewrite = sticky.router.place(request(), None, sticky.backend("a"), 0)
    assert rewrite is not None
    plain, secure = rewrite.answer_fields, rewrite.tls_fields
    assert plain.endswith(b"; Path=/; HttpOnly; SameSite=Lax\r\n")
    assert secure == plain.removesuffix(b"\r\n") + b"; Secure\r\n"


def test_signed_cookie_does_not_count_where_somebody_else_signed_it() -> None:
    assert Sticky("secret").goes_to(Sticky("another").cookie("a")) is None
    assert Sticky("secret").goes_to(Sticky().cookie("a")) is None


def test_client_that_another_server_takes_over_gets_its_cookie(sticky: Sticky) -> None:
    assert sticky.gets_cookie("c", sticky.cookie("b"))


@pytest.mark.parametrize(("state", "stays"), [(AdminState.DRAIN, True), (AdminState.MAINT, False)])
def test_server_that_is_to_drain_keeps_its_clients_and_one_in_maintenance_does_not(
    sticky: Sticky, state: AdminState, stays: bool
) -> None:
    sticky.pool.set_admin(sticky.backend("b"), state, 0)
    assert sticky.goes_to(sticky.cookie("b")) == ("b" if stays else None)


def test_server_that_is_down_loses_its_clients() -> None:
    sticky = Sticky(rules=HealthRules(probed=True))
    for host in "abc":
        sticky.pool.observed(sticky.backend(host), host != "b", 0.0, "")
    assert sticky.goes_to(sticky.cookie("b")) is None
    assert sticky.goes_to(sticky.cookie("c")) == "c"


def test_server_that_a_reload_removes_loses_its_clients_though_it_has_work_left(sticky: Sticky) -> None:
    cookie = sticky.cookie("b")
    Lease(sticky.backend("b"))
    sticky.pool.apply(diff(sticky.pool.addresses, [Address("http", "a", 8000)]))
    assert sticky.goes_to(cookie) is None
    assert sticky.gets_cookie("a", cookie)


def test_first_cookie_that_leads_to_a_server_counts(sticky: Sticky) -> None:
    b, c = sticky.cookie("b"), sticky.cookie("c")
    assert sticky.goes_to("comfyproxy=unknown", c, b) == "c"
    assert not sticky.gets_cookie("c", c, b)
    assert sticky.gets_cookie("b", c, b)


def test_servers_do_not_see_the_cookie(sticky: Sticky) -> None:
    value = f"theme=dark; {sticky.cookie('a')}; lang=en".encode()
    assert sticky.router.cookies(value) == b"theme=dark; lang=en"
    assert sticky.router.drop == frozenset()


def test_router_has_nothing_to_learn_and_drops_no_message(sticky: Sticky) -> None:
    answer = parse_response_head(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", b"GET")
    sticky.router.learn(answer, b"", sticky.backend("a"), 0)
    assert sticky.router.message_key(b"{}", False) is None
    assert sticky.goes_to() is None
