"""The files that a prompt loads are on the server that runs it."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from comfyproxy.comfyui import replication as module
from comfyproxy.comfyui.callers import Callers
from comfyproxy.comfyui.files import FileRef
from comfyproxy.comfyui.ownership import Ownership, mark
from comfyproxy.comfyui.replication import FOLDER, Brought, Lacking, Replication
from comfyproxy.core.balancing.backend import AdminState, Backend
from comfyproxy.core.balancing.changes import diff
from comfyproxy.core.balancing.operations import Ask, Operation, Reply, Wait
from comfyproxy.core.balancing.pool import Pool
from comfyproxy.core.http.http1 import parse_response_head

MINE, OTHER = "0123456789ab", "ba9876543210"
PICTURE = "ComfyUI_00001_.png"


def loading(*texts: str) -> dict[str, Any]:
    return {
        "prompt": {
            str(i): {"class_type": "LoadImage", "inputs": {"image": text}} for i, text in enumerate(texts)
        }
    }


class Scene:
    """A pool with files, and the replication among its servers."""

    def __init__(self, pool: Pool, servers: Any, *, eager: bool = False) -> None:
        self.pool = pool
        self.one, self.two, self.three = pool.backends
        self.servers = servers
        self.ownership = Ownership(pool, Callers(pool))
        self.replication = Replication(pool, self.ownership, eager=eager)
        self.now = 1000.0

    def upload(
        self, backend: Backend, name: str, data: bytes, caller: str = MINE, subfolder: str = ""
    ) -> None:
        """A client uploads a file, which goes to ``backend``."""
        self.servers.put(backend, name, data, "input", subfolder)
        self.replication.uploaded(FileRef("input", subfolder, name), backend, caller, self.now)

    def made(
        self, backend: Backend, name: str, data: bytes, caller: str = MINE, kind: str = "output"
    ) -> None:
        """A prompt makes a picture on ``backend``."""
        self.servers.put(backend, name, data, kind)
        outputs = {"9": {"images": [{"filename": name, "subfolder": "", "type": kind}]}}
        self.ownership.told(outputs, backend, caller, self.now)

    def bring(self, target: Backend, *texts: str, caller: str = MINE) -> Brought:
        self.servers.asked.clear()
        brought: Brought = self.servers.run(self.replication.bring(loading(*texts), target, caller, self.now))
        return brought

    def loaded(self, brought: Brought, target: Backend) -> list[bytes | None]:
        """What the nodes of the prompt find on ``target``."""
        found = []
        for node in brought.submission["prompt"].values():
            stored = self.servers.files[target].annotated(node["inputs"]["image"])
            found.append(None if stored is None else stored.data)
        return found

    def later(self) -> None:
        self.now += 2 * module.FRESH


@pytest.fixture
def scene(make_pool: Callable[..., Pool], make_file_servers: Callable[..., Any]) -> Scene:
    pool = make_pool()
    return Scene(pool, make_file_servers(pool))


def test_an_upload_follows_the_prompt(scene: Scene) -> None:
    scene.upload(scene.one, "u.png", b"data", subfolder="clipspace")
    brought = scene.bring(scene.two, "clipspace/u.png [input]")
    assert brought == Brought(loading("clipspace/u.png [input]"))
    assert scene.loaded(brought, scene.two) == [b"data"]
    assert scene.servers.said(b"POST") == [("server2", b"/upload/image")]


def test_the_submission_is_not_written_anew_if_no_name_changes(scene: Scene) -> None:
    scene.upload(scene.one, "u.png", b"data")
    submission = loading("u.png")
    brought = scene.servers.run(scene.replication.bring(submission, scene.two, MINE, scene.now))
    assert brought.submission is submission


def test_where_the_upload_went_nothing_is_asked(scene: Scene) -> None:
    scene.upload(scene.one, "u.png", b"data")
    assert scene.bring(scene.one, "u.png") == Brought(loading("u.png"))
    assert scene.servers.asked == []


def test_a_prompt_without_files_costs_nothing(scene: Scene) -> None:
    assert scene.bring(scene.one, "a cat") == Brought(loading("a cat"))
    assert scene.servers.asked == []


def test_nothing_is_copied_twice(scene: Scene) -> None:
    scene.upload(scene.one, "u.png", b"data")
    scene.bring(scene.two, "u.png")
    scene.bring(scene.two, "u.png")
    assert scene.servers.asked == []
    scene.later()
    scene.bring(scene.two, "u.png")
    assert {ask.method for ask in scene.servers.asked} == {b"HEAD"}
    assert len(scene.servers.asked) == 2


def test_an_upload_that_was_replaced_is_copied_again(scene: Scene) -> None:
    scene.upload(scene.one, "u.png", b"old")
    scene.bring(scene.two, "u.png")
    scene.upload(scene.one, "u.png", b"new")
    assert scene.loaded(scene.bring(scene.two, "u.png"), scene.two) == [b"new"]


def test_a_file_that_was_changed_behind_the_proxy_is_copied_again(scene: Scene) -> None:
    scene.upload(scene.one, "u.png", b"old")
    scene.bring(scene.two, "u.png")
    scene.servers.put(scene.one, "u.png", b"new")
    scene.later()
    assert scene.loaded(scene.bring(scene.two, "u.png"), scene.two) == [b"new"]


def test_the_same_content_under_the_same_name_is_compared_once(scene: Scene) -> None:
    scene.servers.put(scene.two, "example.png", b"same")
    scene.servers.put(scene.one, "example.png", b"same")
    scene.bring(scene.two, "example.png")
    assert len(scene.servers.said(b"GET")) == 2
    assert scene.servers.said(b"POST") == []
    scene.later()
    scene.bring(scene.two, "example.png")
    assert scene.servers.said(b"GET") == []


def test_after_a_restart_the_newest_file_counts(scene: Scene) -> None:
    scene.servers.put(scene.two, "u.png", b"older")
    scene.servers.put(scene.one, "u.png", b"newer")
    scene.servers.put(scene.three, "u.png", b"olden")
    scene.servers.put(scene.one, "u.png", b"newer")
    brought = scene.bring(scene.two, "u.png")
    assert scene.loaded(brought, scene.two) == [b"newer"]
    assert brought.submission == loading("u.png")


def test_the_uploaders_own_file_counts_and_nobodys_upload_is_lost(scene: Scene) -> None:
    scene.upload(scene.one, "u.png", b"mine", MINE)
    scene.upload(scene.two, "u.png", b"other", OTHER)
    for target in scene.pool.backends:
        for caller, data in ((MINE, b"mine"), (OTHER, b"other")):
            brought = scene.bring(target, "u.png", caller=caller)
            assert scene.loaded(brought, target) == [data]
    assert scene.servers.data(scene.one, "u.png") == b"mine"
    assert scene.servers.data(scene.two, "u.png") == b"other"


def test_somebody_elses_upload_serves_who_has_none(scene: Scene) -> None:
    scene.upload(scene.one, "u.png", b"other", OTHER)
    assert scene.loaded(scene.bring(scene.two, "u.png"), scene.two) == [b"other"]


def test_what_a_prompt_made_is_called_by_its_content_elsewhere(scene: Scene) -> None:
    scene.made(scene.one, PICTURE, b"mine")
    scene.servers.put(scene.two, PICTURE, b"of two", "output")
    brought = scene.bring(scene.two, f"{PICTURE} [output]")
    assert scene.loaded(brought, scene.two) == [b"mine"]
    assert scene.servers.data(scene.two, PICTURE, "output") == b"of two"
    (node,) = brought.submission["prompt"].values()
    assert node["inputs"]["image"].startswith(f"{FOLDER}/")
    assert node["inputs"]["image"].endswith(f"/{PICTURE}")


def test_it_is_found_by_its_mark_and_its_own_server_knows_it_without(scene: Scene) -> None:
    scene.servers.put(scene.one, PICTURE, b"of one", "output")
    scene.servers.put(scene.two, PICTURE, b"of two", "output")
    text = f"{mark('', scene.one)}/{PICTURE} [output]"
    assert scene.loaded(scene.bring(scene.two, text), scene.two) == [b"of one"]
    assert scene.bring(scene.one, text) == Brought(loading(f"{PICTURE} [output]"))


def test_a_copy_that_is_there_is_not_made_again(scene: Scene) -> None:
    scene.made(scene.one, PICTURE, b"mine", kind="temp")
    first = scene.bring(scene.two, f"{PICTURE} [temp]")
    scene.later()
    assert scene.bring(scene.two, f"{PICTURE} [temp]") == first
    assert {ask.method for ask in scene.servers.asked} == {b"HEAD"}
    again = Replication(scene.pool, scene.ownership)
    scene.servers.asked.clear()
    assert scene.servers.run(again.bring(loading(f"{PICTURE} [temp]"), scene.two, MINE, scene.now)) == first
    assert scene.servers.said(b"POST") == []


def test_a_copy_that_was_cut_short_is_made_again(scene: Scene) -> None:
    scene.made(scene.one, PICTURE, b"mine")
    (node,) = scene.bring(scene.two, f"{PICTURE} [output]").submission["prompt"].values()
    subfolder, _, name = node["inputs"]["image"].rpartition("/")
    scene.servers.put(scene.two, name, b"mi", "input", subfolder)
    scene.later()
    assert scene.loaded(scene.bring(scene.two, f"{PICTURE} [output]"), scene.two) == [b"mine"]


def test_the_same_picture_under_the_same_name_needs_no_copy(scene: Scene) -> None:
    scene.made(scene.one, PICTURE, b"same")
    scene.servers.put(scene.two, PICTURE, b"same", "output")
    text = f"{PICTURE} [output]"
    assert scene.bring(scene.two, text) == Brought(loading(text))


def test_an_unknown_picture_is_the_newest(scene: Scene) -> None:
    scene.servers.put(scene.two, PICTURE, b"older", "output")
    scene.servers.put(scene.one, PICTURE, b"newer", "output")
    assert scene.loaded(scene.bring(scene.two, f"{PICTURE} [output]"), scene.two) == [b"newer"]
    assert scene.bring(scene.one, f"{PICTURE} [output]") == Brought(loading(f"{PICTURE} [output]"))


def test_a_picture_whose_server_is_silent_is_not_taken_for_another(scene: Scene) -> None:
    scene.made(scene.one, PICTURE, b"mine")
    scene.servers.put(scene.two, PICTURE, b"of two", "output")
    scene.servers.silent.add(scene.one)
    brought = scene.bring(scene.two, f"{PICTURE} [output]")
    assert [one.holders for one in brought.lacking] == [(scene.one,)]
    assert brought.is_reached


def test_what_nobody_has_is_left_to_comfyui(scene: Scene) -> None:
    scene.made(scene.one, PICTURE, b"mine")
    gone = f"{mark('', scene.three)}/x.png [output]"
    scene.servers.files[scene.one] = type(scene.servers.files[scene.one])()
    scene.pool.apply(diff(scene.pool.addresses, scene.pool.addresses[:2]))
    for text in (f"{PICTURE} [output]", "u.png", gone):
        assert scene.bring(scene.two, text) == Brought(loading(text))


def test_while_the_server_of_an_upload_is_down_a_copy_serves(scene: Scene) -> None:
    scene.upload(scene.one, "u.png", b"data")
    scene.bring(scene.two, "u.png")
    scene.servers.silent.add(scene.one)
    scene.later()
    assert scene.loaded(scene.bring(scene.three, "u.png"), scene.three) == [b"data"]
    assert scene.bring(scene.two, "u.png") == Brought(loading("u.png"))


def test_servers_that_take_nothing_are_not_asked(scene: Scene) -> None:
    scene.pool.set_admin(scene.one, AdminState.MAINT, 1.0)
    scene.bring(scene.two, "u.png")
    assert {ask.backend for ask in scene.servers.asked} == {scene.two, scene.three}


def test_a_target_that_does_not_answer_is_told_of(scene: Scene) -> None:
    scene.upload(scene.one, "u.png", b"data")
    scene.servers.silent.add(scene.two)
    brought = scene.bring(scene.two, "u.png")
    assert not brought.is_reached
    scene.servers.silent.clear()
    assert scene.loaded(scene.bring(scene.two, "u.png"), scene.two) == [b"data"]


def test_what_the_target_does_not_take_is_told_of(scene: Scene) -> None:
    scene.upload(scene.one, "u.png", b"data")
    scene.servers.full.add(scene.two)
    (lacking,) = scene.bring(scene.two, "u.png").lacking
    assert lacking == Lacking(lacking.file, (scene.one,))
    assert lacking.file.text == "u.png [input]"


def test_what_is_too_large_to_copy_is_told_of(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_COPY", 3)
    scene.upload(scene.one, "u.png", b"data")
    assert [one.holders for one in scene.bring(scene.two, "u.png").lacking] == [(scene.one,)]
    assert scene.servers.said(b"GET") == []


def test_a_file_that_goes_away_meanwhile_is_told_of(scene: Scene) -> None:
    def gone(ask: Ask, reply: Reply) -> Reply:
        not_found = parse_response_head(b"HTTP/1.1 404 X\r\n\r\n", b"GET")
        return Reply(ask.backend, not_found) if ask.method == b"GET" else reply

    scene.upload(scene.one, "u.png", b"data")
    scene.servers.instead = gone
    assert len(scene.bring(scene.two, "u.png").lacking) == 1


def test_a_file_here_that_cannot_be_read_is_replaced(scene: Scene) -> None:
    def cut(ask: Ask, reply: Reply) -> Reply:
        is_here = ask.method == b"GET" and ask.backend is scene.two
        return Reply(ask.backend, why="cut") if is_here else reply

    scene.upload(scene.one, "u.png", b"data")
    scene.servers.put(scene.two, "u.png", b"datb")
    scene.servers.instead = cut
    assert scene.loaded(scene.bring(scene.two, "u.png"), scene.two) == [b"data"]


def test_servers_without_tags_are_read_each_time(scene: Scene) -> None:
    def untagged(ask: Ask, reply: Reply) -> Reply:
        if reply.head is None or ask.method == b"POST":
            return reply
        raw = f"HTTP/1.1 {reply.status} X\r\n\r\n".encode()
        return replace(reply, head=parse_response_head(raw, ask.method))

    scene.upload(scene.one, "u.png", b"data")
    scene.servers.instead = untagged
    for _ in range(2):
        scene.later()
        assert scene.loaded(scene.bring(scene.two, "u.png"), scene.two) == [b"data"]
        assert ("server1", b"/view?filename=u.png&subfolder=&type=input") in scene.servers.said(b"GET")
    assert not scene.replication._digests


def test_many_files_are_brought_at_the_same_time(scene: Scene) -> None:
    names = [f"u{number}.png" for number in range(5)]
    for name in names:
        scene.upload(scene.one, name, name.encode())
    operation = scene.replication.bring(loading(*names), scene.two, MINE, scene.now)
    assert len(operation.send(None)) == 5
    assert scene.loaded(scene.bring(scene.two, *names), scene.two) == [name.encode() for name in names]


def test_only_so_much_is_asked_at_the_same_time(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "AT_ONCE", 6)
    scene.bring(scene.two, "a.png", "b.png", "c.png", "d.png", "e.png")
    assert scene.servers.at_once == [6, 6, 3]


def test_an_upload_of_somebody_unknown_is_everybodys(scene: Scene) -> None:
    scene.upload(scene.one, "u.png", b"data", caller="")
    assert scene.loaded(scene.bring(scene.two, "u.png"), scene.two) == [b"data"]


def test_one_file_under_two_texts_is_brought_once(scene: Scene) -> None:
    scene.upload(scene.one, "u.png", b"data")
    brought = scene.bring(scene.two, "u.png", "u.png [input]")
    assert scene.loaded(brought, scene.two) == [b"data", b"data"]
    assert len(scene.servers.said(b"POST")) == 1


def test_what_is_being_copied_is_waited_for(scene: Scene) -> None:
    scene.upload(scene.one, "u.png", b"data")
    first, second, third = (
        scene.replication.bring(loading("u.png"), scene.two, MINE, scene.now) for _ in range(3)
    )
    looked = [scene.servers._answer(one.send(None), b"") for one in (first, second, third)]
    fetching = first.send(looked[0])
    waiting = second.send(looked[1])
    also_waiting = third.send(looked[2])
    assert isinstance(waiting, Wait)
    assert waiting == also_waiting
    assert scene.servers.run(resumed(first, scene.servers._answer(fetching, b""))).lacking == ()
    assert waiting.latch.is_open
    for one in (second, third):
        brought = scene.servers.run(resumed(one, None))
        assert scene.loaded(brought, scene.two) == [b"data"]
    assert len(scene.servers.said(b"POST")) == 1


def test_who_gives_up_copying_leaves_it_to_the_next(scene: Scene) -> None:
    scene.upload(scene.one, "u.png", b"data")
    first, second = (scene.replication.bring(loading("u.png"), scene.two, MINE, scene.now) for _ in range(2))
    looked = [scene.servers._answer(one.send(None), b"") for one in (first, second)]
    first.send(looked[0])
    waiting = second.send(looked[1])
    first.close()
    assert isinstance(waiting, Wait)
    assert waiting.latch.is_open
    assert scene.loaded(scene.servers.run(resumed(second, None)), scene.two) == [b"data"]


def resumed(operation: Operation, answer: Any) -> Operation:
    """``operation`` from where it waits for ``answer``."""
    try:
        step = operation.send(answer)
        while True:
            step = operation.send((yield step))
    except StopIteration as done:
        return done.value


def test_only_so_much_is_remembered(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_SETTLED", 2)
    scene.bring(scene.one, *(f"{number}.png" for number in range(5)))
    assert len(scene.replication._settled) == 2


def test_uploads_go_everywhere_at_once_if_that_is_wanted(
    make_pool: Callable[..., Pool], make_file_servers: Callable[..., Any]
) -> None:
    pool = make_pool()
    scene = Scene(pool, make_file_servers(pool), eager=True)
    scene.upload(scene.three, "u.png", b"other", OTHER)
    scene.servers.put(scene.two, "u.png", b"stale")
    scene.upload(scene.one, "u.png", b"mine")
    scene.upload(scene.one, "gone.png", b"x")
    scene.upload(scene.two, "w.png", b"w")
    scene.servers.files[scene.one] = type(scene.servers.files[scene.one])()
    scene.servers.put(scene.one, "u.png", b"mine")
    for operation in scene.replication.background(scene.now):
        scene.servers.run(operation)
    assert [scene.servers.data(one, "u.png") for one in pool.backends] == [b"mine", b"mine", b"other"]
    assert [scene.servers.data(one, "w.png") for one in pool.backends] == [b"w", b"w", b"w"]
    assert len([ask for ask in scene.servers.asked if ask.method == b"GET" and ask.backend is scene.two]) <= 2
    assert list(scene.replication.background(scene.now)) == []


def test_otherwise_nothing_is_done_beside_requests(scene: Scene) -> None:
    scene.upload(scene.one, "u.png", b"data")
    assert list(scene.replication.background(scene.now)) == []
