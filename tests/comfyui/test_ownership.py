"""Which server a picture is on, and how two of the same name are told apart."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comfyproxy.comfyui import ownership as module
from comfyproxy.comfyui.callers import Caller, Callers
from comfyproxy.comfyui.files import FileRef, file_in_query, file_in_text
from comfyproxy.comfyui.ownership import (
    Ownership,
    files_in,
    mark,
    marked,
    modified,
    newest,
    plain_target,
    unmark,
    view_of,
)
from comfyproxy.core.balancing.backend import AdminState
from comfyproxy.core.balancing.changes import diff
from comfyproxy.core.balancing.operations import Reply
from comfyproxy.core.balancing.pool import Pool
from comfyproxy.core.balancing.routing import Decision, Default, Operate, Pin, Refuse
from comfyproxy.core.http.http1 import RequestHead, parse_response_head

MakeHead = Callable[..., RequestHead]
PICTURE = {"filename": "ComfyUI_00001_.png", "subfolder": "", "type": "output"}
REF = FileRef("output", "", "ComfyUI_00001_.png")
TARGET = "/view?filename=ComfyUI_00001_.png&subfolder=&type=output"
OUTPUTS = {"9": {"images": [PICTURE], "animated": [False]}}


class Scene:
    """A pool with files, and what is known of their owners."""

    def __init__(self, pool: Pool, servers: Any, make_head: MakeHead) -> None:
        self.pool = pool
        self.one, self.two, self.three = pool.backends
        self.servers = servers
        self.callers = Callers(pool)
        self.ownership = Ownership(pool, self.callers)
        self.make_head = make_head
        self.now = 1000.0

    def view(self, target: str = TARGET, *fields: str) -> Decision:
        decision = self.ownership.view(self.make_head("GET", target, *fields), self.now)
        if isinstance(decision, Operate):
            decided: Decision = self.servers.run(decision.operation)
            return decided
        return decision

    def caller(self, *fields: str, target: str = "/queue") -> Caller:
        found: Caller = self.servers.run(self.callers.identify(self.make_head("GET", target, *fields)))
        return found


@pytest.fixture
def scene(
    make_pool: Callable[..., Pool], make_head: MakeHead, make_file_servers: Callable[..., Any]
) -> Scene:
    pool = make_pool()
    return Scene(pool, make_file_servers(pool), make_head)


def test_two_pictures_of_one_name_are_told_apart_by_marks(scene: Scene) -> None:
    targets = []
    for backend in (scene.one, scene.two):
        (picture,) = scene.ownership.mark(OUTPUTS, backend)["9"]["images"]
        assert picture["filename"] == PICTURE["filename"]
        targets.append(view_of(FileRef(picture["type"], picture["subfolder"], picture["filename"])).decode())
    assert [scene.view(target) for target in targets] == [
        Pin(scene.one, strict=True),
        Pin(scene.two, strict=True),
    ]


def test_a_server_sees_its_own_name_for_the_file(scene: Scene) -> None:
    target = view_of(FileRef("output", mark("a b/ü", scene.one), "x.png"))
    assert file_in_query(plain_target(target)) == FileRef("output", "a b/ü", "x.png")
    assert file_in_query(plain_target(target + b"&preview=webp")) == FileRef("output", "a b/ü", "x.png")


@pytest.mark.parametrize(
    "target",
    [
        b"/view?filename=server-0123456789ab&type=output",
        b"/view?filename=a&subfolder=x%20y+z&type=temp",
        b"/view?filename=a&subfolder=",
        b"/view?filename=a&mysubfolder=server-0123456789ab",
        b"/view?filename=a&subfolder=%FF",
    ],
)
def test_a_target_without_a_mark_stays_as_it_is(target: bytes) -> None:
    assert plain_target(target) == target


def test_what_else_is_in_a_subfolder_survives_octet_by_octet() -> None:
    assert plain_target(b"/view?subfolder=server-0123456789ab%2F%FF") == b"/view?subfolder=%FF"


def test_a_mark_is_set_once_and_taken_off(scene: Scene) -> None:
    once = mark("sub", scene.one)
    assert mark(once, scene.two) == once
    assert unmark(once) == (scene.one.fingerprint, "sub")
    assert unmark(mark("", scene.one)) == (scene.one.fingerprint, "")
    assert unmark("server-0123456789abc/x") == ("", "server-0123456789abc/x")


def test_what_was_given_is_left_as_it_is(scene: Scene) -> None:
    before = copy.deepcopy(OUTPUTS)
    result = marked(OUTPUTS, scene.one)
    assert before == OUTPUTS
    assert result["9"]["images"] == [PICTURE | {"subfolder": f"server-{scene.one.fingerprint}"}]
    assert result["9"]["animated"] == [False]


@pytest.mark.parametrize(
    "outputs",
    [
        None,
        {"9": {"images": [PICTURE | {"type": "input"}]}},
        {"9": {"text": ["filename"]}},
        {"9": {"images": [PICTURE | {"filename": 7}]}},
        {"9": [PICTURE | {"subfolder": ["x"]}]},
    ],
)
def test_there_may_be_nothing_to_mark(scene: Scene, outputs: Any) -> None:
    assert marked(outputs, scene.one) is outputs


def test_outputs_too_deep_to_walk_are_left(scene: Scene) -> None:
    deep: Any = PICTURE
    for _ in range(100_000):
        deep = [deep]
    assert marked(deep, scene.one) is deep
    assert list(files_in(deep)) == []


def test_one_server_needs_no_marks(make_pool: Callable[..., Pool]) -> None:
    pool = make_pool("http://server1:8188")
    assert Ownership(pool, Callers(pool)).mark(OUTPUTS, pool.backends[0]) is OUTPUTS


def test_a_picture_of_a_server_that_is_gone_is_not_replaced_by_another(scene: Scene) -> None:
    target = view_of(FileRef("output", mark("", scene.three), "a.png")).decode()
    scene.pool.apply(diff(scene.pool.addresses, scene.pool.addresses[:2]))
    refusal = scene.view(target)
    assert isinstance(refusal, Refuse)
    assert refusal.status == 404


def test_without_a_mark_the_callers_own_picture_comes_first(scene: Scene) -> None:
    mine, other = scene.caller(target="/ws?clientId=mine"), scene.caller(target="/ws?clientId=other")
    scene.ownership.told(OUTPUTS, scene.one, mine.fingerprint, scene.now)
    scene.ownership.told(OUTPUTS, scene.two, other.fingerprint, scene.now)
    assert scene.ownership.find(REF, mine.fingerprint, scene.now) is scene.one
    assert scene.ownership.find(REF, other.fingerprint, scene.now) is scene.two
    assert scene.ownership.find(REF, "someone else", scene.now) is scene.two
    by_mark = REF._replace(subfolder=mark("", scene.three))
    assert scene.ownership.find(by_mark, mine.fingerprint, scene.now) is scene.three


def test_a_script_that_does_not_say_who_it_is_sees_its_own_picture(scene: Scene) -> None:
    script = scene.caller(target="/ws?clientId=script")
    scene.ownership.told(OUTPUTS, scene.one, script.fingerprint, scene.now)
    scene.ownership.told(OUTPUTS, scene.two, "0123456789ab", scene.now)
    assert scene.view() == Pin(scene.one, strict=True)


def test_marks_in_what_is_told_make_no_difference(scene: Scene) -> None:
    scene.ownership.told(marked(OUTPUTS, scene.two), scene.two, "0123456789ab", scene.now)
    assert scene.view() == Pin(scene.two, strict=True)


def test_of_unknown_files_the_newest_is_shown_and_remembered(scene: Scene) -> None:
    for backend in (scene.one, scene.three, scene.two):
        scene.servers.put(backend, REF.name, backend.url.encode(), "output")
    assert scene.view() == Pin(scene.two, strict=True)
    scene.servers.asked.clear()
    assert scene.view() == Pin(scene.two, strict=True)
    assert not scene.servers.asked


def test_a_file_is_looked_for_as_it_is_not_as_it_is_to_be_shown(scene: Scene) -> None:
    scene.servers.put(scene.two, "a.png", b"", "temp", "x y")
    target = "/view?filename=a.png&subfolder=x%20y&type=temp&preview=webp;90&channel=a&rand=0.1"
    assert scene.view(target) == Pin(scene.two, strict=True)
    assert {ask.target for ask in scene.servers.asked} == {b"/view?filename=a.png&subfolder=x%20y&type=temp"}


def test_an_upload_may_be_shown_by_any_server_that_has_it(scene: Scene) -> None:
    scene.servers.put(scene.one, "u.png", b"u")
    scene.servers.put(scene.two, "u.png", b"u")
    target = "/view?filename=u.png&type=input"
    assert scene.view(target) == Pin(scene.two)
    scene.pool.set_admin(scene.two, AdminState.MAINT, 1.0)
    assert scene.view(target) == Pin(scene.one)


def test_a_picture_is_not_looked_for_elsewhere_while_its_server_is_down(scene: Scene) -> None:
    scene.servers.put(scene.one, REF.name, b"another", "output")
    scene.ownership.told(OUTPUTS, scene.two, "0123456789ab", scene.now)
    scene.pool.set_admin(scene.two, AdminState.MAINT, 1.0)
    assert scene.view() == Pin(scene.two, strict=True)


def test_who_has_no_such_file_says_so_itself(scene: Scene) -> None:
    nearest = scene.callers.affinity(scene.caller().fingerprint)
    assert nearest is not None
    assert scene.view() == Pin(nearest)
    for backend in scene.pool.backends:
        scene.pool.set_admin(backend, AdminState.MAINT, 1.0)
    assert scene.view() == Default()


def test_a_view_of_nothing_goes_anywhere(scene: Scene) -> None:
    assert scene.view("/view?type=output") == Default()


def test_many_servers_are_asked_in_turns(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "AT_ONCE", 2)
    scene.servers.put(scene.three, REF.name, b"x", "output")
    operation = newest(REF, scene.pool.backends)
    assert [len(next(operation)), len(operation.send(()))] == [2, 1]
    assert scene.servers.run(newest(REF, scene.pool.backends)) is scene.three


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("Tue, 14 Nov 2023 22:13:20 GMT", 1_700_000_000.0),
        ("yesterday", 0.0),
        ("Tue, 14 Nov 99999 22:13:20 GMT", 0.0),
        (None, 0.0),
    ],
)
def test_a_time_that_is_none_is_long_ago(scene: Scene, value: str | None, seconds: float) -> None:
    line = "" if value is None else f"Last-Modified: {value}\r\n"
    head = parse_response_head(f"HTTP/1.1 200 OK\r\n{line}\r\n".encode(), b"HEAD")
    assert modified(Reply(scene.one, head)) == seconds
    assert modified(Reply(scene.one)) == 0.0


def test_only_so_many_outputs_are_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_OUTPUTS", 5)
    assert len(list(files_in([PICTURE] * 100))) == 4


@given(
    st.recursive(
        st.none() | st.text() | st.floats() | st.just(PICTURE),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from(["filename", "type", "subfolder", "x"]), inner, max_size=3)
        ),
    )
)
def test_no_outputs_are_too_strange(outputs: Any) -> None:
    for file in files_in(outputs):
        assert unmark(file.subfolder) == ("", file.subfolder)


@given(st.text(min_size=1), st.text(), st.sampled_from(["input", "output", "temp"]))
def test_a_file_can_be_asked_for_whatever_its_name(name: str, subfolder: str, kind: str) -> None:
    file = FileRef(kind, subfolder, name)
    assert file_in_query(view_of(file)) == file


def test_an_input_of_a_node_may_name_a_file_by_its_mark() -> None:
    file = file_in_text("server-0123456789ab/x.png [output]")
    assert file == FileRef("output", "server-0123456789ab", "x.png")
    assert file.text == "server-0123456789ab/x.png [output]"
    assert file_in_text("x.png").text == "x.png [input]"
