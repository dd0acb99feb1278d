"""What is sent to a server for one prompt, and what comes of it."""

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from comfyproxy.comfyui.files import FileRef
from comfyproxy.comfyui.prompts.ledger import Phase
from comfyproxy.comfyui.prompts.sending import Sent, Verdict, fields_of, send, with_members
from comfyproxy.comfyui.replication import Brought, Lacking
from comfyproxy.core.balancing.health import Status as HealthStatus

Prompt = Callable[..., dict[str, Any]]


def on_its_way(rig: Any, seconds: Prompt) -> Any:
    """A prompt that has just been given to a server."""
    sent: list[Any] = []

    def catch(ask: Any) -> None:
        if ask.target == b"/prompt" and not sent:
            sent.extend(rig.dispatch.ledger)

    rig.before = catch
    rig.submit(seconds(4), "Comfy-Usage-Source: tests", client_id="me")
    rig.before = lambda ask: None
    return sent[0]


def bringing(brought: Brought) -> Any:
    def bring(*_: Any) -> Any:
        yield from ()
        return brought

    return bring


def test_members_go_last_because_the_last_ones_count() -> None:
    body = with_members(b'{"prompt": {}, "number": 7}\n', {"number": 2.5})
    assert body == b'{"prompt": {}, "number": 7, "number": 2.5}'
    assert json.loads(body) == {"prompt": {}, "number": 2.5}


def test_the_clients_fields_go_along_but_those_of_its_connection(rig: Any, make_head: Any) -> None:
    fields = fields_of(
        make_head(
            "POST",
            "/prompt",
            "Comfy-User: me",
            "Authorization: Bearer x",
            "Content-Type: text/plain",
            "Accept-Encoding: gzip",
            "Origin: http://comfy.example:8080",
            "Connection: keep-alive",
            "Cookie: a=b; comfyproxy=00112233445566778899aabbccddeeff",
        ),
        rig.dispatch,
    )
    assert fields == b"Comfy-User: me\r\nAuthorization: Bearer x\r\nCookie: a=b\r\n"


def test_the_clients_websocket_comes_first(rig: Any, seconds: Prompt) -> None:
    prompt = on_its_way(rig, seconds)
    assert prompt.fields == b"Comfy-Usage-Source: tests\r\n"
    assert ("me", prompt.backend) in rig.lines


def test_without_its_websocket_nothing_is_sent(rig: Any, seconds: Prompt) -> None:
    prompt = on_its_way(rig, seconds)
    server = rig.server(prompt.backend)
    rig.kill(server)
    server.asked.clear()
    sent = rig.run(send(rig.dispatch, prompt))
    assert (sent.verdict, server.asked) == (Verdict.UNREACHED, [])


def test_a_server_that_does_not_say_what_files_it_has_is_not_reached(rig: Any, seconds: Prompt) -> None:
    prompt = on_its_way(rig, seconds)
    rig.dispatch.replication.bring = bringing(Brought({}, is_reached=False))
    assert rig.run(send(rig.dispatch, prompt)).verdict is Verdict.UNREACHED


def test_who_has_the_files_that_could_not_be_brought_is_told(rig: Any, seconds: Prompt) -> None:
    prompt = on_its_way(rig, seconds)
    first, second = rig.pool.backends
    one, two = FileRef("input", "", "one.png"), FileRef("input", "", "two.png")
    for holders, expected in (
        (((first,), (first, second)), {first}),
        (((first,), (second,)), {first, second}),
    ):
        lacking = tuple(Lacking(file, held) for file, held in zip((one, two), holders, strict=True))
        rig.dispatch.replication.bring = bringing(Brought({}, lacking))
        sent: Sent = rig.run(send(rig.dispatch, prompt))
        assert (sent.verdict, sent.holders) == (Verdict.UNREACHED, expected)
        assert sent.why.startswith("one.png [input], two.png")


def test_files_of_other_names_are_named_so(rig: Any, seconds: Prompt) -> None:
    prompt = on_its_way(rig, seconds)
    renamed = seconds(4, 99)
    rig.dispatch.replication.bring = bringing(Brought({"prompt": renamed, "prompt_id": prompt.prompt_id}))
    assert rig.run(send(rig.dispatch, prompt)).verdict is Verdict.TAKEN
    assert rig.server(prompt.backend).posts()[-1]["prompt"] == renamed


def test_a_prompt_whose_files_are_elsewhere_goes_there(rig: Any, seconds: Prompt) -> None:
    _, second = rig.pool.backends
    lacking = (Lacking(FileRef("input", "", "one.png"), (second,)),)

    def bring(document: Any, target: Any, *_: Any) -> Any:
        yield from ()
        return Brought(document) if target is second else Brought(document, lacking)

    rig.dispatch.replication.bring = bring
    for seed in range(3):
        assert rig.holder(rig.submit(seconds(20, seed))) is rig.servers[1]
    rig.dispatch.replication.bring = bringing(Brought({}, lacking))
    status, told = rig.ask("POST", "/prompt", {"prompt": seconds(1)})
    assert (status, "one.png" in told) == (502, True)


def test_what_answers_but_is_no_comfyui_has_not_taken_it(rig: Any, seconds: Prompt) -> None:
    rig.servers[0].statuses["POST", "/prompt"] = 200
    ids = [rig.submit(seconds(4, seed)) for seed in range(3)]
    assert all(rig.holder(one) is rig.servers[1] for one in ids)


def test_it_is_not_asked_for_at_a_server_that_went_down(rig: Any, seconds: Prompt) -> None:
    prompt = on_its_way(rig, seconds)
    server = rig.server(prompt.backend)
    prompt.becomes(Phase.SENDING, rig.clock.seconds())
    server.loses_answers = True
    prompt.backend.health = replace(prompt.backend.health, status=HealthStatus.DOWN)
    server.asked.clear()
    assert rig.run(send(rig.dispatch, prompt)).verdict is Verdict.UNREACHED
    assert ("GET", "/queue") not in [(method, path) for method, path, _ in server.asked]


def test_one_that_has_begun_is_taken_though_the_server_says_nothing(rig: Any, seconds: Prompt) -> None:
    for server in rig.servers:
        server.takes_and_is_silent = True

    def begin(ask: Any) -> None:
        if ask.target == b"/queue":
            rig.clock.advance(0)

    rig.before = begin
    one = rig.submit(seconds(4), client_id="me")
    assert rig.prompt(one).phase.value == "running"
