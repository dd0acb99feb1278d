"""Requests for files: where they go and what changes in them."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from comfyproxy.comfyui.callers import Callers
from comfyproxy.comfyui.file_routes import FileRoutes
from comfyproxy.comfyui.files import FileRef
from comfyproxy.comfyui.forms import original_of
from comfyproxy.comfyui.home import Home
from comfyproxy.comfyui.ownership import Ownership, mark, view_of
from comfyproxy.comfyui.replication import Replication
from comfyproxy.comfyui.wire import find_route
from comfyproxy.core.balancing.backend import AdminState, Backend
from comfyproxy.core.balancing.changes import diff
from comfyproxy.core.balancing.operations import Ask, Reply
from comfyproxy.core.balancing.pool import Pool
from comfyproxy.core.balancing.routing import (
    Decision,
    NeedBody,
    Operate,
    Pin,
    Refuse,
    Respond,
    Rewrite,
    Search,
)
from comfyproxy.core.http.http1 import RequestHead, parse_response_head

MakeHead = Callable[..., RequestHead]
MakePool = Callable[..., Pool]


class Scene:
    """A pool with files, and the routes to them."""

    def __init__(self, pool: Pool, servers: Any, make_head: MakeHead) -> None:
        self.pool = pool
        self.servers = servers
        self.make_head = make_head
        callers = Callers(pool)
        self.ownership = Ownership(pool, callers)
        self.replication = Replication(pool, self.ownership)
        self.routes = FileRoutes(pool, callers, Home(pool), self.ownership, self.replication)

    @property
    def one(self) -> Backend:
        return self.pool.backends[0]

    @property
    def two(self) -> Backend:
        return self.pool.backends[1]

    def ask(self, method: str, target: str, body: bytes | None = None, *fields: str) -> Decision | None:
        """The decision in the end."""
        head = self.make_head(method, target, *fields, length=len(body or b""))
        route, argument = find_route(head)
        decision = self.routes.route(route, argument, head, None, 1.0)
        if isinstance(decision, NeedBody):
            decision = self.routes.route(route, argument, head, body, 1.0)
        if isinstance(decision, Operate):
            decided: Decision = self.servers.run(decision.operation)
            return decided
        return decision

    def place(self, method: str, target: str, body: bytes | None = None, *fields: str) -> Rewrite | None:
        head = self.make_head(method, target, *fields, length=len(body or b""))
        return self.routes.place(find_route(head)[0], head, body)


@pytest.fixture
def scene(make_pool: MakePool, make_head: MakeHead, make_file_servers: Callable[..., Any]) -> Scene:
    pool = make_pool()
    return Scene(pool, make_file_servers(pool), make_head)


FORM = "Content-Type: multipart/form-data; boundary=b"


def mask_of(**original: str) -> bytes:
    return (
        '--b\r\nContent-Disposition: form-data; name="original_ref"\r\n\r\n'
        f"{json.dumps(original)}\r\n--b--\r\n"
    ).encode()


def test_a_picture_is_seen_where_it_was_made(scene: Scene) -> None:
    target = view_of(FileRef("output", mark("a", scene.two), "x.png")).decode()
    assert scene.ask("GET", target) == Pin(scene.two, strict=True)
    assert scene.place("GET", target) == Rewrite(b"/view?filename=x.png&subfolder=a&type=output")
    assert scene.place("GET", "/view?filename=x.png") is None


def test_a_models_picture_is_where_the_model_is(scene: Scene) -> None:
    assert scene.ask("GET", "/view_metadata/loras?filename=x.safetensors") == Search()


def test_other_requests_are_not_about_files(scene: Scene) -> None:
    assert scene.ask("GET", "/queue") is None
    assert scene.place("GET", "/queue") is None


def test_an_upload_goes_home_and_is_found_there(scene: Scene) -> None:
    assert scene.ask("POST", "/upload/image", b"form") == Pin(scene.one)
    rewrite = scene.place("POST", "/upload/image", b"form")
    assert rewrite is not None
    assert rewrite.watch > 0
    answer = parse_response_head(b"HTTP/1.1 200 OK\r\n\r\n", b"POST")
    scene.routes.learn(answer, b'{"name": "u.png", "subfolder": "", "type": "input"}', scene.two, 1.0)
    assert scene.replication.home_of(FileRef("input", "", "u.png"), "0123456789ab", 1.0) is scene.two
    assert scene.ask("GET", "/view?filename=u.png&type=input") == Pin(scene.two)
    scene.routes.learn(answer, b'{"error": "none"}', scene.one, 1.0)
    assert scene.ask("GET", "/view?filename=u.png&type=input") == Pin(scene.two)


def test_a_mask_goes_where_its_picture_was_made(scene: Scene) -> None:
    outputs = {"9": {"images": [{"filename": "x.png", "subfolder": "", "type": "output"}]}}
    scene.ownership.told(outputs, scene.two, "0123456789ab", 1.0)
    body = mask_of(filename="x.png", type="output")
    assert scene.ask("POST", "/upload/mask", body, FORM) == Pin(scene.two, strict=True)


def test_a_mask_on_an_unknown_picture_goes_where_the_newest_is(scene: Scene) -> None:
    scene.servers.put(scene.one, "x.png", b"old", "output")
    scene.servers.put(scene.two, "x.png", b"new", "output")
    body = mask_of(filename="x.png", type="output")
    assert scene.ask("POST", "/upload/mask", body, FORM) == Pin(scene.two, strict=True)


def test_a_mask_on_an_upload_goes_to_a_copy_while_its_server_is_down(scene: Scene) -> None:
    answer = parse_response_head(b"HTTP/1.1 200 OK\r\n\r\n", b"POST")
    scene.routes.learn(answer, b'{"name": "u.png", "subfolder": "", "type": "input"}', scene.one, 1.0)
    for backend in (scene.one, scene.two):
        scene.servers.put(backend, "u.png", b"u")
    body = mask_of(filename="u.png", type="input")
    assert scene.ask("POST", "/upload/mask", body, FORM) == Pin(scene.one, strict=True)
    scene.pool.set_admin(scene.one, AdminState.MAINT, 1.0)
    assert scene.ask("POST", "/upload/mask", body, FORM) == Pin(scene.two, strict=True)


def test_the_server_of_the_picture_sees_no_mark(scene: Scene) -> None:
    body = mask_of(filename="x.png", subfolder=mark("s", scene.two), type="output")
    assert scene.ask("POST", "/upload/mask", body, FORM) == Pin(scene.two, strict=True)
    rewrite = scene.place("POST", "/upload/mask", body, FORM)
    assert rewrite is not None
    assert rewrite.body is not None
    original = original_of(b"multipart/form-data; boundary=b", rewrite.body)
    assert original is not None
    assert original.file == FileRef("output", "s", "x.png")


def test_a_mask_without_marks_stays_as_it_is(scene: Scene) -> None:
    for body in (mask_of(filename="x.png"), b"no form"):
        rewrite = scene.place("POST", "/upload/mask", body, FORM)
        assert rewrite is not None
        assert rewrite.body is None
        assert rewrite.watch > 0


def test_a_mask_on_nothing_is_an_upload(scene: Scene) -> None:
    assert scene.ask("POST", "/upload/mask", b"no form", FORM) == Pin(scene.one)
    assert scene.ask("POST", "/upload/mask", mask_of(filename="x.png"), FORM) == Pin(scene.one)
    assert scene.ask("POST", "/upload/mask") == Pin(scene.one)


def test_a_mask_on_a_picture_that_is_gone_is_refused(scene: Scene) -> None:
    body = mask_of(filename="x.png", subfolder=mark("", scene.pool.backends[2]))
    scene.pool.apply(diff(scene.pool.addresses, scene.pool.addresses[:2]))
    refusal = scene.ask("POST", "/upload/mask", body, FORM)
    assert isinstance(refusal, Refuse)
    assert refusal.status == 404


def listed(scene: Scene, folder: str, bodies: list[tuple[int, bytes]]) -> Decision:
    head = scene.make_head("GET", f"/internal/files/{folder}")
    decision = scene.routes.route(*find_route(head), head, None, 1.0)
    assert isinstance(decision, Operate)
    steps = decision.operation.send(None)
    assert steps == tuple(Ask(backend, b"GET", head.target) for backend in scene.pool.backends)
    replies = tuple(
        Reply(backend, parse_response_head(f"HTTP/1.1 {status} X\r\n\r\n".encode(), b"GET"), body)
        if status
        else Reply(backend, why="silent")
        for backend, (status, body) in zip(scene.pool.backends, bodies, strict=True)
    )
    with pytest.raises(StopIteration) as done:
        decision.operation.send(replies)
    found: Decision = done.value.value
    return found


def test_what_all_servers_made_is_listed_and_told_apart(scene: Scene) -> None:
    decision = listed(scene, "output", [(200, b'["b.png", "a.png"]'), (200, b'["a.png"]'), (0, b"")])
    assert isinstance(decision, Respond)
    one, two = mark("", scene.one), mark("", scene.two)
    assert json.loads(decision.body) == [f"{one}/b.png", f"{two}/a.png", f"{one}/a.png"]


def test_uploads_are_listed_once(scene: Scene) -> None:
    decision = listed(scene, "input", [(200, b'["u.png", 7]'), (200, b'["u.png", "v.png"]'), (200, b"{}")])
    assert isinstance(decision, Respond)
    assert json.loads(decision.body) == ["u.png", "v.png"]


def test_one_server_lists_its_own(
    make_pool: MakePool, make_head: MakeHead, make_file_servers: Callable[..., Any]
) -> None:
    pool = make_pool("http://server1:8188")
    decision = listed(Scene(pool, make_file_servers(pool), make_head), "output", [(200, b'["a.png"]')])
    assert isinstance(decision, Respond)
    assert json.loads(decision.body) == ["a.png"]


def test_a_folder_that_nobody_lists_is_what_the_first_says(scene: Scene) -> None:
    decision = listed(scene, "x", [(0, b""), (400, b'{"error": "x"}'), (200, b"[" * 100_000)])
    assert decision == Respond(400, b'{"error": "x"}', backend=scene.two)


def test_silence_is_no_empty_folder(scene: Scene) -> None:
    assert isinstance(listed(scene, "output", [(0, b"")] * 3), Refuse)
