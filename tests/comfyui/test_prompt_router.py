"""Where requests go where every prompt goes to the best server."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from comfyproxy.comfyui.callers import Kind
from comfyproxy.comfyui.identity import fingerprint_in, mint_prompt_id
from comfyproxy.comfyui.prompt_router import PromptRouter
from comfyproxy.core.balancing.routing import (
    Default,
    Join,
    NeedBody,
    Operate,
    Pin,
    Refuse,
    Respond,
    Search,
    WorkingRouter,
)
from comfyproxy.core.config import ComfyUIConfig
from comfyproxy.core.http.http1 import parse_response_head
from tests.comfyui.prompts.rig import UPGRADE, Rig, make_head, sampled

PAGE = ("Accept: text/html,*/*;q=0.8",)


@pytest.fixture
def rig() -> Rig:
    rig = Rig(3)
    rig.turn(1)
    return rig


def cookie_of(rig: Rig, backend: Any = None) -> str:
    """What a browser sends once it has its cookie."""
    backend = backend or rig.pool.backends[0]
    rewrite = rig.router.place(make_head("GET", "/", *PAGE), None, backend, 0.0)
    assert rewrite is not None
    return "Cookie: " + rewrite.answer_fields.decode().removeprefix("Set-Cookie: ").partition(";")[0]


class TestPages:
    def test_a_page_and_what_it_loads_come_from_one_server(self, rig: Rig) -> None:
        for backend in rig.pool.backends:
            cookie = cookie_of(rig, backend)
            for target in ("/", "/assets/index-abc.js", "/extensions/x.js", "/api/models/vae", "/ws"):
                assert rig.decide("GET", target, cookie) == Pin(backend)

    def test_who_says_nothing_gets_the_next_server(self, rig: Rig) -> None:
        assert rig.decide("GET", "/api/models") == Default()
        assert rig.decide("POST", "/some/node/pack", body=b"{}") == Default()

    def test_only_pages_and_websockets_bring_the_cookie(self, rig: Rig) -> None:
        backend = rig.pool.backends[0]
        assert rig.router.place(make_head("GET", "/api/models"), None, backend, 0.0) is None
        for target, brings in (("/api/models", False), ("/", True), ("/workflows", False)):
            head = make_head("GET", target)
            assert rig.router.route(head, None, 0.0) == Default()
            assert (rig.router.place(head, None, backend, 0.0) is not None) is brings
        assert rig.router.place(make_head("GET", "/", cookie_of(rig)), None, backend, 0.0) is None

    def test_the_proxys_cookie_is_its_own(self, rig: Rig) -> None:
        cookie = cookie_of(rig).removeprefix("Cookie: ").encode()
        assert rig.router.cookies(b"a=b; " + cookie) == b"a=b"

    @pytest.mark.parametrize("target", ["/", "/prompt", "/queue", "/ws"])
    def test_pages_of_other_sites_are_refused(self, rig: Rig, target: str) -> None:
        decision = rig.decide("POST", target, "Sec-Fetch-Site: cross-site", body=b"{}")
        assert isinstance(decision, Refuse)
        assert decision.status == 403

    def test_a_page_of_its_own_is_not(self, rig: Rig) -> None:
        assert isinstance(rig.decide("GET", "/", "Origin: http://comfy.example:8080"), Default)


class TestWebSockets:
    def test_a_browser_gets_a_client_id_that_is_known_for_its_own(self, rig: Rig) -> None:
        page = rig.open("/ws", cookie_of(rig))
        told = page.events[0]["data"]["sid"]
        caller = rig.router._callers.browser(make_head("GET", "/", cookie_of(rig)))
        assert caller is not None
        other = rig.open("/ws", "Cookie: " + cookie_of(rig).removeprefix("Cookie: "))
        assert fingerprint_in(told) is not None
        assert other.events[0]["data"]["sid"] != told

    def test_somebody_new_gets_the_cookie_with_the_websocket(self, rig: Rig) -> None:
        decision = rig.decide("GET", "/api/ws", *UPGRADE)
        assert isinstance(decision, Join)
        cookie = "Cookie: " + decision.fields.decode().removeprefix("Set-Cookie: ").partition(";")[0]
        caller = rig.router._callers.browser(make_head("GET", "/", cookie))
        assert caller is not None
        assert caller.kind is Kind.BROWSER
        assert fingerprint_in(decision.session.client_id) == caller.fingerprint

    def test_a_client_id_of_its_own_is_kept(self, rig: Rig) -> None:
        assert rig.open("/ws?clientId=mine").session is rig.open("/ws?clientId=mine").session
        assert rig.open("/ws?clientId=mine").session.client_id == "mine"

    def test_nobody_may_have_the_proxys_own(self, rig: Rig) -> None:
        decision = rig.decide("GET", f"/ws?clientId={rig.dispatch.observer.client_id}", *UPGRADE)
        assert isinstance(decision, Refuse)
        assert decision.status == 403


class TestBodies:
    @pytest.mark.parametrize(
        ("method", "target"),
        [
            ("POST", "/prompt"),
            ("POST", "/api/queue"),
            ("POST", "/history"),
            ("POST", "/interrupt"),
            ("POST", "/free"),
            ("POST", "/api/jobs/cancel"),
            ("PATCH", "/internal/logs/subscribe"),
        ],
    )
    def test_what_is_in_a_body_is_looked_at(self, rig: Rig, method: str, target: str) -> None:
        assert isinstance(rig.router.route(make_head(method, target, length=5), None, 1.0), NeedBody)

    @pytest.mark.parametrize("target", ["/upload/image", "/userdata/a", "/anything"])
    def test_other_bodies_stream(self, rig: Rig, target: str) -> None:
        decision = rig.router.route(make_head("POST", target, length=5), None, 1.0)
        assert not isinstance(decision, NeedBody | Operate)

    def test_a_prompt_is_sent_whether_its_client_waits_or_not(self, rig: Rig) -> None:
        for target in ("/prompt", "/interrupt", "/free", "/queue"):
            decision = rig.router.route(make_head("POST", target, length=2), b"{}", 1.0)
            assert isinstance(decision, Operate)
            assert decision.outlasts


class TestLists:
    @pytest.mark.parametrize(
        "target",
        [
            "/queue",
            "/api/queue",
            "/prompt",
            "/history",
            "/history?max_items=3",
            "/api/jobs?status=pending",
            "/object_info",
            "/object_info/SaveImage",
            "/system_stats",
            "/features",
        ],
    )
    @pytest.mark.parametrize("down", [0, 1, 2])
    def test_they_are_answered_here_as_long_as_a_server_is_there(
        self, rig: Rig, target: str, down: int
    ) -> None:
        for server in rig.servers[:down]:
            rig.kill(server)
        decision = rig.decide("GET", target)
        assert isinstance(decision, Respond)
        assert decision.status == 200
        assert json.loads(decision.body) is not None

    def test_a_prompt_is_looked_for_where_it_is(self, rig: Rig) -> None:
        one = rig.submit(sampled(1), client_id="me")
        where = rig.holder(one)
        rig.turn(3)
        for server in rig.servers:
            server.asked.clear()
        assert list(rig.ask("GET", f"/history/{one}")[1]) == [one]
        assert rig.ask("GET", f"/api/jobs/{one}")[1]["id"] == one
        assert [server is where for server in rig.servers if server.asked] == [True]

    def test_an_id_says_who_is_asked_first(self, rig: Rig) -> None:
        one = rig.submit(sampled(1), client_id="me")
        rig.turn(3)
        other = Rig(3, beside=rig)
        other.turn(1)
        for server in rig.servers:
            server.asked.clear()
        assert list(other.ask("GET", f"/history/{one}")[1]) == [one]
        assert sum(bool(server.asked) for server in rig.servers) == 1

    def test_one_that_went_elsewhere_is_found_all_the_same(self, rig: Rig) -> None:
        elsewhere = mint_prompt_id(rig.pool.backends[0].fingerprint)
        rig.servers[2].ask_directly(sampled(1), prompt_id=elsewhere)
        rig.turn(3)
        other = Rig(3, beside=rig)
        other.turn(1)
        assert list(other.ask("GET", f"/history/{elsewhere}")[1]) == [elsewhere]
        assert other.ask("GET", f"/api/jobs/{elsewhere}")[1]["id"] == elsewhere

    def test_what_nobody_knows_is_said_as_comfyui_says_it(self, rig: Rig) -> None:
        unknown = mint_prompt_id(rig.pool.backends[0].fingerprint)
        assert rig.ask("GET", f"/history/{unknown}") == (200, {})
        assert rig.ask("GET", f"/api/jobs/{unknown}")[0] == 404


class TestOthers:
    def test_user_state_has_one_home(self, rig: Rig) -> None:
        home = rig.pool.backends[0]
        assert rig.decide("POST", "/api/settings/x", body=b"1") == Pin(home, strict=True)
        rig.router.follow(ComfyUIConfig(home="http://gpu2:8188", replicate_uploads=True))
        assert rig.decide("GET", "/api/settings") == Pin(rig.pool.backends[1])
        assert rig.decide("POST", "/api/upload/image", body=b"x") == Pin(rig.pool.backends[1])
        assert rig.dispatch.replication.eager

    def test_models_are_looked_for(self, rig: Rig) -> None:
        assert rig.decide("GET", "/view_metadata/loras?filename=a") == Search()

    def test_memory_is_freed_everywhere(self, rig: Rig) -> None:
        unloaded = []
        rig.dispatch.scheduler.unloaded = unloaded.append  # type: ignore[method-assign]
        assert rig.ask("POST", "/free", {"free_memory": False})[0] == 200
        assert unloaded == []
        assert rig.ask("POST", "/api/free", {"free_memory": True})[0] == 200
        assert unloaded == list(rig.pool.backends)
        assert all(len(server.posts("/free") + server.posts("/api/free")) == 2 for server in rig.servers)

    def test_a_log_is_that_of_the_nearest_server(self, rig: Rig) -> None:
        page = rig.open("/ws?clientId=mine")
        body = json.dumps({"clientId": "mine", "enabled": True}).encode()
        decision = rig.decide("PATCH", "/internal/logs/subscribe", body=body)
        assert isinstance(decision, Pin | Respond)
        assert decision.backend in (page.session.home, None)

    def test_an_upload_is_offered_from_then_on(self, rig: Rig) -> None:
        rig.ask("GET", "/object_info")
        backend = rig.pool.backends[0]
        head = make_head("POST", "/upload/image", length=3)
        rewrite = rig.router.place(head, None, backend, 0.0)
        assert rewrite is not None
        assert rewrite.watch > 0
        for server in rig.servers:
            server.asked.clear()
        rig.router.learn(_json_head(), b'{"name": "a.png", "subfolder": "", "type": "input"}', backend, 0.0)
        rig.ask("GET", "/object_info")
        assert [len(server.asked) for server in rig.servers] == [1, 0, 0]

    def test_it_has_work_of_its_own(self, rig: Rig) -> None:
        assert isinstance(rig.router, WorkingRouter)
        woken: list[int] = []
        wake: Callable[[], None] = lambda: woken.append(1)  # noqa: E731
        rig.router.wake = wake
        assert rig.router.wake is wake
        rig.submit(sampled(1))
        assert woken
        assert rig.dispatch.observer in rig.router.sessions

    def test_two_routers_of_one_pool_share_nothing(self, rig: Rig) -> None:
        assert PromptRouter(rig.pool).sessions is not rig.router.sessions


def _json_head() -> Any:
    return parse_response_head(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n", b"POST")
