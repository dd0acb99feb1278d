"""The rules of each placement, one by one."""

import json
from collections.abc import Callable, Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comfyproxy.comfyui import router as router_module
from comfyproxy.comfyui import wire
from comfyproxy.comfyui.identity import fingerprint_in, mint_client_id, mint_prompt_id
from comfyproxy.comfyui.prompt_router import PromptRouter
from comfyproxy.comfyui.router import ClientRouter, RequestRouter, make_router
from comfyproxy.comfyui.wire import Document
from comfyproxy.core.balancing.pool import Pool
from comfyproxy.core.balancing.routing import Default, NeedBody, Pin, Refuse, Rewrite, Search
from comfyproxy.core.http.http1 import RequestHead, parse_request_head, parse_response_head

MakeHead = Callable[..., RequestHead]
MakePool = Callable[..., Pool]

UPGRADE = (
    "Connection: Upgrade",
    "Upgrade: websocket",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    "Sec-WebSocket-Version: 13",
)
PAGE = ("Accept: text/html,application/xhtml+xml,*/*;q=0.8",)


def submission(**members: Any) -> bytes:
    return json.dumps({"prompt": {"1": {"class_type": "EmptyImage"}}, **members}).encode()


def written(rewrite: Rewrite | None) -> dict[str, Any]:
    """The document that a backend is sent instead of the client's."""
    assert rewrite is not None
    assert rewrite.body is not None
    document: dict[str, Any] = json.loads(rewrite.body)
    return document


class TestMakeRouter:
    def test_each_placement_has_its_router(self, make_pool: MakePool) -> None:
        assert isinstance(make_router("client", make_pool()), ClientRouter)
        assert isinstance(make_router("request", make_pool()), RequestRouter)
        assert isinstance(make_router("prompt", make_pool()), PromptRouter)

    def test_another_placement_is_an_error(self, make_pool: MakePool) -> None:
        with pytest.raises(ValueError, match="'client', 'request' or 'prompt'"):
            make_router("magic", make_pool())

    def test_the_cookie_and_the_randomness_are_the_callers(
        self, make_pool: MakePool, make_head: MakeHead
    ) -> None:
        pool = make_pool()
        one, *_ = pool.backends
        router = make_router("client", pool, cookie="video", cookie_path="/video", random=bytes)
        rewrite = router.place(make_head("GET", "/ws", *UPGRADE), None, one, 0)
        assert rewrite is not None
        (line,) = rewrite.answer_fields.splitlines()
        assert line.startswith(f"Set-Cookie: video={one.fingerprint}; Path=/video;".encode())
        assert rewrite.target == f"/ws?clientId=00000000000080008000{one.fingerprint}".encode()


class TestPlacementRequest:
    @pytest.fixture
    def proxy(self, make_proxy: Callable[..., Any]) -> Any:
        return make_proxy(placement="request")

    def test_everything_rotates_and_nothing_is_changed(self, proxy: Any) -> None:
        one, *_ = proxy.pool.backends
        minted = mint_client_id(one.fingerprint)
        cookie = f"Cookie: comfyproxy={one.fingerprint}"
        sent = [
            proxy.send("GET", f"/ws?clientId={minted}", *UPGRADE, cookie),
            proxy.send("POST", "/prompt", body=submission(client_id=minted)),
            proxy.send("GET", f"/history/{mint_prompt_id(one.fingerprint)}"),
            proxy.send("GET", "/", cookie, *PAGE),
        ]
        assert [one.server for one in sent] == ["server1", "server2", "server3", "server1"]
        assert [one.rewrite for one in sent] == [Rewrite()] * 4

    def test_pages_of_other_sites_are_refused_all_the_same(self, proxy: Any) -> None:
        assert proxy.send("GET", "/", "Sec-Fetch-Site: cross-site").refusal.status == 403
        assert proxy.router.drop == {b"origin", b"sec-fetch-site"}

    def test_all_cookies_pass(self, proxy: Any) -> None:
        assert proxy.router.cookies(b"comfyproxy=1; a=b") == b"comfyproxy=1; a=b"


class TestBodies:
    @pytest.mark.parametrize(
        ("method", "target", "limit"),
        [
            ("POST", "/prompt", 100 * 1024 * 1024),
            ("POST", "/api/prompt", 100 * 1024 * 1024),
            ("POST", "/queue", 1024 * 1024),
            ("PATCH", "/internal/logs/subscribe", 1024 * 1024),
        ],
    )
    def test_a_body_is_asked_for_where_it_names_somebody(
        self, proxy: Any, make_head: MakeHead, method: str, target: str, limit: int
    ) -> None:
        for lines, length in (((), 5), (("Transfer-Encoding: chunked",), 0)):
            head = make_head(method, target, *lines, length=length)
            assert proxy.router.route(head, None, 0) == NeedBody(limit)
            assert proxy.router.route(head, b"{}", 0) == Default()

    @pytest.mark.parametrize(
        ("method", "target"), [("POST", "/upload/image"), ("POST", "/free"), ("PUT", "/prompt")]
    )
    def test_other_bodies_stream(self, proxy: Any, make_head: MakeHead, method: str, target: str) -> None:
        assert proxy.router.route(make_head(method, target, length=5), None, 0) == Default()

    @pytest.mark.parametrize("target", ["/prompt", "/interrupt"])
    def test_a_body_that_is_not_there_is_not_asked_for(self, proxy: Any, target: str) -> None:
        sent = proxy.send("POST", target)
        assert (sent.server, sent.rewrite) == ("server1", Rewrite())

    def test_a_body_is_parsed_once_for_routing_and_placing(
        self, proxy: Any, make_head: MakeHead, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        parsed: list[bytes] = []

        def read_object(body: bytes) -> Document | None:
            parsed.append(body)
            return wire.read_object(body)

        monkeypatch.setattr(router_module, "read_object", read_object)
        head, body = make_head("POST", "/prompt", length=5), submission()
        one, two, _ = proxy.pool.backends
        proxy.router.route(head, body, 0)
        first = proxy.router.place(head, body, one, 0)
        assert parsed == [body]
        second = proxy.router.place(head, body, two, 0)
        assert written(first).keys() == written(second).keys()

    def test_bodies_of_the_same_length_are_not_confused(self, proxy: Any, make_head: MakeHead) -> None:
        head, one = make_head("POST", "/prompt", length=5), proxy.pool.backends[0]
        proxy.router.route(head, b'{"a": 1}', 0)
        assert written(proxy.router.place(head, b'{"b": 2}', one, 0)).keys() == {"prompt_id", "b"}


class TestPrompts:
    def ids_of_all(self, proxy: Any) -> list[str]:
        return [mint_prompt_id(backend.fingerprint) for backend in proxy.pool.backends]

    @pytest.mark.parametrize(
        ("method", "target", "body"),
        [
            ("GET", "/history/ID", None),
            ("GET", "/api/history/ID", None),
            ("GET", "/api/jobs/ID", None),
            ("POST", "/api/jobs/ID/cancel", None),
            ("POST", "/interrupt", {"prompt_id": "ID"}),
            ("POST", "/api/queue", {"delete": ["ID"]}),
            ("POST", "/history", {"delete": ["unknown", "ID"]}),
            ("POST", "/api/jobs/cancel", {"job_ids": ["ID"]}),
        ],
    )
    def test_what_is_about_a_prompt_goes_to_the_server_that_has_it(
        self, proxy: Any, make_head: MakeHead, method: str, target: str, body: dict[str, Any] | None
    ) -> None:
        elsewhere = f"Cookie: comfyproxy={proxy.backend('server1').fingerprint}"
        for backend, prompt in zip(proxy.pool.backends, self.ids_of_all(proxy), strict=True):
            data = None if body is None else json.dumps(body).replace("ID", prompt).encode()
            head = make_head(method, target.replace("ID", prompt), elsewhere, length=len(data or b""))
            assert proxy.router.route(head, data, 0) == Pin(backend, strict=True)

    def test_no_other_server_is_tried(self, proxy: Any) -> None:
        proxy.refusing.add("server2")
        sent = proxy.send("GET", f"/history/{self.ids_of_all(proxy)[1]}")
        assert sent.refusal is not None
        assert [one.address.host for one in sent.placed] == ["server2"]

    def test_a_clients_own_prompt_id_is_remembered(self, proxy: Any) -> None:
        for name in ("mine", "yours", "theirs"):
            proxy.send("POST", "/prompt", body=submission(prompt_id=name))
        assert [proxy.send("GET", f"/history/{name}").server for name in ("mine", "yours", "theirs")] == [
            "server1",
            "server2",
            "server3",
        ]

    def test_a_prompt_that_nobody_has_goes_by_what_else_there_is(self, proxy: Any) -> None:
        cookie = f"Cookie: comfyproxy={proxy.backend('server3').fingerprint}"
        assert proxy.send("GET", "/history/unknown", cookie).server == "server3"
        assert proxy.send("GET", "/history/unknown").server == "server1"
        assert proxy.send("GET", f"/history/{mint_prompt_id('000000000000')}").server == "server2"

    def test_looking_at_a_prompt_elsewhere_does_not_move_the_browser(self, proxy: Any) -> None:
        cookie = f"Cookie: comfyproxy={proxy.backend('server1').fingerprint}"
        sent = proxy.send("GET", f"/api/jobs/{self.ids_of_all(proxy)[1]}", cookie)
        assert (sent.server, sent.cookie) == ("server2", None)


class TestSubmissions:
    def test_a_submission_without_a_prompt_id_is_given_one(self, proxy: Any) -> None:
        body = submission(client_id="mine")
        sent = proxy.send("POST", "/prompt", body=body)
        prompt = written(sent.rewrite)["prompt_id"]
        assert sent.rewrite.body == body.replace(b"{", b'{"prompt_id": "%b", ' % prompt.encode(), 1)
        assert fingerprint_in(prompt) == sent.backend.fingerprint

    def test_a_null_counts_as_none(self, proxy: Any) -> None:
        sent = proxy.send("POST", "/prompt", body=submission(prompt_id=None))
        assert fingerprint_in(written(sent.rewrite)["prompt_id"]) == sent.backend.fingerprint

    @pytest.mark.parametrize("prompt", ["mine", "", 5, ["a"], "x" * 1000])
    def test_a_prompt_id_that_is_there_stays(self, proxy: Any, prompt: object) -> None:
        assert proxy.send("POST", "/prompt", body=submission(prompt_id=prompt)).rewrite == Rewrite()

    @pytest.mark.parametrize("body", [b"nonsense", b"[]", b'"{}"', b"\xff", b"{" * 99_999])
    def test_what_is_no_object_is_left_for_comfyui_to_refuse(self, proxy: Any, body: bytes) -> None:
        sent = proxy.send("POST", "/prompt", body=body)
        assert (sent.refusal, sent.rewrite) == (None, Rewrite())

    def test_a_retry_elsewhere_gets_a_fresh_id(self, proxy: Any, make_head: MakeHead) -> None:
        head, body = make_head("POST", "/prompt", length=5), submission()
        backends = proxy.pool.backends
        proxy.router.route(head, body, 0)
        minted = [written(proxy.router.place(head, body, one, 0))["prompt_id"] for one in backends]
        assert [fingerprint_in(one) for one in minted] == [one.fingerprint for one in backends]
        assert len({one[:18] for one in minted}) == 3

    def test_the_client_comes_before_the_prompt(self, proxy: Any) -> None:
        one, two, three = proxy.pool.backends
        client, prompt = mint_client_id(two.fingerprint), mint_prompt_id(three.fingerprint)
        body = submission(client_id=client, prompt_id=prompt)
        sent = proxy.send("POST", "/prompt", f"Cookie: comfyproxy={one.fingerprint}", body=body)
        assert (sent.backend, sent.pinned) == (two, True)

    def test_the_events_of_a_new_client_go_where_its_cookie_is(self, proxy: Any) -> None:
        one, two, three = proxy.pool.backends
        body = submission(client_id="new", prompt_id=mint_prompt_id(three.fingerprint))
        cookie = f"Cookie: comfyproxy={two.fingerprint}"
        assert proxy.send("POST", "/prompt", cookie, body=body).backend is two
        assert proxy.send("POST", "/prompt", body=submission(client_id="newer")).backend is one

    def test_a_known_prompt_without_a_client_goes_to_its_server_if_that_answers(self, proxy: Any) -> None:
        body = submission(prompt_id=mint_prompt_id(proxy.backend("server2").fingerprint))
        assert proxy.send("POST", "/prompt", body=body).server == "server2"
        proxy.refusing.add("server2")
        assert proxy.send("POST", "/prompt", body=body).refusal is None

    def test_another_server_that_took_over_has_the_prompt(self, proxy: Any) -> None:
        prompt = mint_prompt_id(proxy.backend("server2").fingerprint)
        proxy.refusing.add("server2")
        sent = proxy.send("POST", "/prompt", body=submission(prompt_id=prompt))
        assert sent.server != "server2"
        assert proxy.send("GET", f"/history/{prompt}").server == sent.server


class TestSockets:
    @pytest.mark.parametrize("target", ["/ws", "/api/ws", "/ws?clientId=", "/ws?clientId=&clientId=late"])
    def test_a_websocket_without_a_client_id_is_given_one(self, proxy: Any, target: str) -> None:
        sent = proxy.send("GET", target, *UPGRADE)
        path, _, query = sent.rewrite.target.decode().partition("?clientId=")
        assert path == target.partition("?")[0]
        assert fingerprint_in(query.partition("&")[0]) == sent.backend.fingerprint

    def test_a_websocket_with_one_keeps_it(self, proxy: Any) -> None:
        assert proxy.send("GET", "/ws?clientId=mine", *UPGRADE).rewrite.target is None

    def test_other_requests_are_not_given_one(self, proxy: Any) -> None:
        assert proxy.send("GET", "/view?filename=a.png").rewrite == Rewrite()
        assert proxy.send("GET", "/ws/other", *UPGRADE).rewrite.target is None

    def test_a_client_moves_for_good_when_another_server_takes_over(self, proxy: Any) -> None:
        minted = mint_client_id(proxy.backend("server1").fingerprint)
        for client in (minted, "mine"):
            proxy.refusing = set()
            home = proxy.send("GET", f"/ws?clientId={client}", *UPGRADE).server
            proxy.refusing = {home}
            moved = proxy.send("GET", f"/ws?clientId={client}", *UPGRADE).server
            assert moved != home
            proxy.refusing = set()
            assert proxy.send("POST", "/prompt", body=submission(client_id=client)).server == moved

    def test_a_client_that_is_not_heard_of_for_a_week_is_forgotten(self, proxy: Any) -> None:
        assert proxy.send("GET", "/ws?clientId=mine", *UPGRADE).server == "server1"
        proxy.now += 7 * 24 * 3600
        assert proxy.send("GET", "/ws?clientId=mine", *UPGRADE).server == "server2"


class TestCookies:
    @pytest.mark.parametrize(
        ("method", "target", "lines"),
        [
            ("GET", "/", ()),
            ("GET", "/?workflow=1", ()),
            ("GET", "/templates/index.html", PAGE),
            ("GET", "/anything", ("Sec-Fetch-Dest: document",)),
            ("GET", "/ws", UPGRADE),
            ("GET", "/ws?clientId=mine", UPGRADE),
            ("GET", "/custom/socket", UPGRADE),
        ],
    )
    def test_pages_and_websockets_set_it(
        self, proxy: Any, method: str, target: str, lines: Iterable[str]
    ) -> None:
        sent = proxy.send(method, target, *lines)
        assert sent.cookie == f"comfyproxy={sent.backend.fingerprint}"

    @pytest.mark.parametrize(
        ("method", "target", "lines"),
        [
            ("GET", "/api/object_info", ()),
            ("GET", "/api/object_info", ("Accept: */*", "Sec-Fetch-Dest: empty")),
            ("GET", "/view?filename=a.png", ("Accept: image/png,text/html", "Sec-Fetch-Dest: image")),
            ("POST", "/", ()),
            ("HEAD", "/", PAGE),
            ("GET", "/ws", ()),
            ("GET", "/scripts/app.js", ("Cookie: theme=dark",)),
        ],
    )
    def test_calls_of_the_api_do_not(
        self, proxy: Any, method: str, target: str, lines: Iterable[str]
    ) -> None:
        assert proxy.send(method, target, *lines).cookie is None

    def test_the_browser_stays_where_it_says(self, proxy: Any) -> None:
        cookie = f"Cookie: theme=dark; comfyproxy={proxy.backend('server2').fingerprint}"
        for target, lines in (("/", PAGE), ("/api/object_info", ()), ("/ws", UPGRADE), ("/unknown/x", ())):
            sent = proxy.send("GET", target, cookie, *lines)
            assert (sent.server, sent.pinned, sent.cookie) == ("server2", True, None)

    @pytest.mark.parametrize("value", ["000000000000", "nonsense", ""])
    def test_one_that_names_nobody_is_replaced_on_any_request(self, proxy: Any, value: str) -> None:
        sent = proxy.send("GET", "/api/settings", f"Cookie: comfyproxy={value}")
        assert (sent.pinned, sent.cookie) == (False, f"comfyproxy={sent.backend.fingerprint}")

    def test_one_is_replaced_when_another_server_takes_over(self, proxy: Any) -> None:
        proxy.refusing.add("server2")
        cookie = f"Cookie: comfyproxy={proxy.backend('server2').fingerprint}"
        sent = proxy.send("GET", "/api/settings", cookie)
        assert sent.server != "server2"
        assert sent.cookie == f"comfyproxy={sent.backend.fingerprint}"

    def test_it_follows_the_client_to_the_server_of_its_websocket(self, proxy: Any) -> None:
        one, two, _ = proxy.pool.backends
        body = submission(client_id=mint_client_id(two.fingerprint))
        sent = proxy.send("POST", "/prompt", f"Cookie: comfyproxy={one.fingerprint}", body=body)
        assert (sent.backend, sent.cookie) == (two, f"comfyproxy={two.fingerprint}")

    def test_backends_see_only_the_others(self, proxy: Any) -> None:
        assert proxy.router.cookies(b"comfyproxy=1; a=b") == b"a=b"
        assert proxy.router.cookies(b"comfyproxy=1") == b""


class TestOrigin:
    def test_pages_of_other_sites_are_refused_before_their_body_is_read(
        self, proxy: Any, make_head: MakeHead
    ) -> None:
        head = make_head("POST", "/prompt", "Origin: http://evil.example", host="localhost:8080", length=5)
        decision = proxy.router.route(head, None, 0)
        assert isinstance(decision, Refuse)
        assert decision.status == 403

    def test_backends_see_neither_field(self, proxy: Any) -> None:
        assert proxy.router.drop == {b"origin", b"sec-fetch-site"}


hostile_ids = st.text(st.characters(), max_size=300) | st.integers() | st.none() | st.lists(st.text())
hostile_bodies = st.binary(max_size=80) | st.builds(
    lambda client, prompt, delete: json.dumps(
        {"client_id": client, "clientId": client, "prompt_id": prompt, "delete": delete, "job_ids": delete}
    ).encode(),
    hostile_ids,
    hostile_ids,
    st.lists(hostile_ids, max_size=4),
)
hostile_targets = st.sampled_from(
    ["/prompt", "/api/queue", "/interrupt", "/history", "/api/jobs/cancel", "/internal/logs/subscribe", "/ws"]
) | st.builds(
    "{}{}".format,
    st.sampled_from(["/history/", "/api/jobs/", "/ws?clientId="]),
    st.text("%2Ff&=+a;", max_size=12),
)


@given(
    st.sampled_from(["GET", "POST", "PATCH", "HEAD"]),
    hostile_targets,
    st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=30),
    hostile_bodies,
)
def test_no_request_is_too_strange_to_place(
    make_pool: MakePool, method: str, target: str, value: str, body: bytes
) -> None:
    pool = make_pool()
    router = make_router("client", pool)
    lines = "".join(f"{name}: {value}\r\n" for name in ("Cookie", "Origin", "Accept", "Sec-Fetch-Site"))
    for host in ("localhost:8080", "comfy.example"):
        head = parse_request_head(
            f"{method} {target} HTTP/1.1\r\nHost: {host}\r\n{lines}Content-Length: 5\r\n\r\n".encode()
        )
        for given_body in (None, body):
            decision = router.route(head, given_body, 0)
            assert isinstance(decision, Default | Pin | NeedBody | Refuse)
            for backend in pool.backends:
                rewrite = router.place(head, given_body, backend, 0)
                if rewrite is not None and rewrite.body is not None:
                    assert fingerprint_in(written(rewrite)["prompt_id"]) == backend.fingerprint


class TestFiles:
    """A picture asked for by name alone."""

    VIEW = "/view?filename=a.png&subfolder=&type=output"

    def test_one_nobody_told_of_is_looked_for_everywhere(
        self, make_pool: MakePool, make_head: MakeHead
    ) -> None:
        assert ClientRouter(make_pool()).route(make_head("GET", self.VIEW), None, 0) == Search()

    def test_the_cookie_goes_before_the_search(self, make_pool: MakePool, make_head: MakeHead) -> None:
        backends = make_pool()
        one = backends.backends[1]
        request = make_head("GET", self.VIEW, f"Cookie: comfyproxy={one.fingerprint}")
        assert ClientRouter(backends).route(request, None, 0) == Pin(one)

    def test_it_is_asked_where_a_history_told_of_it(self, make_pool: MakePool, make_head: MakeHead) -> None:
        backends = make_pool()
        router = ClientRouter(backends)
        one, two = backends.backends[:2]
        history = make_head("GET", f"/history/{mint_prompt_id(one.fingerprint)}")
        rewrite = router.place(history, None, one, 0)
        assert rewrite is not None
        assert rewrite.watch > 0
        outputs = {"outputs": {"9": {"images": [{"filename": "a.png", "subfolder": "", "type": "output"}]}}}
        answer = parse_response_head(b"HTTP/1.1 200 OK\r\n\r\n", b"GET")
        router.learn(answer, json.dumps({"id": outputs}).encode(), one, 0)
        assert router.route(make_head("GET", self.VIEW), None, 1) == Pin(one)
        router.learn(answer, json.dumps({"id": outputs}).encode(), two, 2)
        assert router.route(make_head("GET", self.VIEW), None, 3) == Pin(two)

    def test_placement_request_learns_nothing(self, make_pool: MakePool, make_head: MakeHead) -> None:
        backends = make_pool()
        router = RequestRouter()
        answer = parse_response_head(b"HTTP/1.1 200 OK\r\n\r\n", b"GET")
        router.learn(answer, b'{"outputs": [{"filename": "a.png"}]}', backends.backends[0], 0)
        assert router.route(make_head("GET", self.VIEW), None, 0) == Default()

    def test_a_prompt_goes_where_the_picture_it_loads_was_uploaded(
        self, make_pool: MakePool, make_head: MakeHead
    ) -> None:
        backends = make_pool()
        router = ClientRouter(backends)
        two = backends.backends[1]
        rewrite = router.place(make_head("POST", "/upload/image", length=9), None, two, 0)
        assert rewrite is not None
        assert rewrite.watch > 0
        answer = parse_response_head(b"HTTP/1.1 200 OK\r\n\r\n", b"POST")
        router.learn(answer, b'{"name": "u.png", "subfolder": "", "type": "input"}', two, 0)
        prompt = {"1": {"class_type": "LoadImage", "inputs": {"image": "u.png"}}}
        body = submission(client_id="new", prompt=prompt)
        request = make_head("POST", "/prompt", length=len(body))
        assert router.route(request, body, 1) == Pin(two)
        body = submission(client_id="new", prompt={"1": {"inputs": {"image": "other.png"}}})
        assert router.route(make_head("POST", "/prompt", length=len(body)), body, 1) == Default()


def test_the_first_cookie_that_names_a_backend_of_the_pool_counts(
    make_head: Callable[..., RequestHead], make_pool: Callable[..., Pool]
) -> None:
    pool = make_pool()
    one, two, _ = pool.backends
    values = f"comfyproxy=unknown; comfyproxy={two.fingerprint}; comfyproxy={one.fingerprint}"
    router = ClientRouter(pool)
    assert router.route(make_head("GET", "/", f"Cookie: {values}"), None, 0) == Pin(two)
    assert router.route(make_head("GET", "/", "Cookie: comfyproxy=unknown"), None, 0) == Default()
