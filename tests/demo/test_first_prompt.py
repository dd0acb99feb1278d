"""The client that sends a first prompt."""

from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.protocol import Factory, Protocol
from twisted.web.resource import Resource
from twisted.web.server import Request, Site

from comfyproxy.demo.first_prompt import Failed, Finished, Queued, Report, Step, demo_workflow, run_prompt
from comfyproxy.demo.picture import text_of
from comfyproxy.demo.routing import Answer, json_answer, text_answer


class Greeting(Resource):
    """A web server that is no ComfyUI."""

    isLeaf = True

    def render_GET(self, request: Request) -> bytes:
        return b"hello"


@pytest_twisted.ensureDeferred
async def test_a_prompt_is_followed_to_its_picture(lab: Any) -> None:
    server = await lab.serve()
    reports: list[Report] = []
    finished = await run_prompt(reactor, server.url, reports.append, demo_workflow(seed=7, steps=3))
    assert isinstance(finished, Finished)
    assert reports == [Queued(finished.prompt_id, 0), Step(1, 3), Step(2, 3), Step(3, 3), finished]
    (picture,) = finished.pictures
    assert (picture.filename, picture.type, picture.server) == ("demo_00001_.png", "output", "gpu-1")
    assert text_of(picture.data)["prompt_id"] == finished.prompt_id
    assert len(server.machine.clients) == 0


@pytest_twisted.ensureDeferred
async def test_two_default_prompts_differ(lab: Any) -> None:
    server = await lab.serve()
    pictures = [(await run_prompt(reactor, server.url)).pictures[0].data for _ in range(2)]  # type: ignore[union-attr]
    assert pictures[0] != pictures[1]


@pytest_twisted.ensureDeferred
async def test_a_refused_prompt_says_why(lab: Any) -> None:
    server = await lab.serve()
    last = await run_prompt(reactor, server.url, workflow={"1": {"class_type": "KSampler", "inputs": {}}})
    assert last == Failed(
        "POST /prompt was answered 400: Node 'KSampler' not found. The custom node may not be installed."
    )


@pytest_twisted.ensureDeferred
async def test_a_node_that_fails_is_named(lab: Any) -> None:
    server = await lab.serve()
    server.machine.files.save("input", "", "x.png", b"no picture", 0.0)
    workflow = {
        "1": {"class_type": "LoadImage", "inputs": {"image": "x.png"}},
        "2": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}},
    }
    last = await run_prompt(reactor, server.url, workflow=workflow)
    assert last == Failed("LoadImage failed: cannot identify image file 'x.png'")


@pytest_twisted.ensureDeferred
async def test_an_interrupted_prompt_is_no_success(lab: Any) -> None:
    server = await lab.serve()

    def report(one: Report) -> None:
        if isinstance(one, Step):
            server.machine.worker.interrupt()

    assert await run_prompt(reactor, server.url, report) == Failed("the prompt was interrupted")


@pytest_twisted.ensureDeferred
async def test_a_server_that_dies_in_mid_job_is_a_failure(lab: Any) -> None:
    server = await lab.serve()

    def report(one: Report) -> None:
        if isinstance(one, Step):
            server.stop()

    last = await run_prompt(reactor, server.url, report)
    assert last == Failed("the WebSocket closed before the prompt had ended")


@pytest_twisted.ensureDeferred
async def test_a_prompt_that_takes_too_long_is_given_up(lab: Any) -> None:
    server = await lab.serve(speed=0.001)
    last = await run_prompt(reactor, server.url, timeout=0.05)
    assert last == Failed(f"no picture from {server.url} within 0.05 s")
    assert len(server.machine.clients) == 0


@pytest_twisted.ensureDeferred
async def test_a_server_that_is_not_there_is_a_failure(lab: Any) -> None:
    server = await lab.serve()
    url = server.url
    await server.stop()
    last = await run_prompt(reactor, url)
    assert isinstance(last, Failed)
    assert "refused" in last.reason


@pytest.mark.parametrize(
    ("factory", "reason"),
    [
        (Site(Greeting()), "the WebSocket was refused"),
        (Factory.forProtocol(Protocol), "no picture from"),
    ],
    ids=["web-server", "silent-server"],
)
@pytest_twisted.ensureDeferred
async def test_what_is_no_comfyui_is_a_failure(factory: Any, reason: str) -> None:
    factory.noisy = False
    port = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(factory)
    last = await run_prompt(reactor, f"http://127.0.0.1:{port.getHost().port}/", timeout=0.2)
    assert isinstance(last, Failed)
    assert last.reason.startswith(reason)
    await port.stopListening()


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (json_answer({}), "what answers at {url} is no ComfyUI"),
        (text_answer("out of order", 500), "POST /prompt was answered 500: out of order"),
        (text_answer("", 502), "POST /prompt was answered 502: (no body)"),
        (json_answer({"error": "nobody is free"}, 503), "POST /prompt was answered 503: nobody is free"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_an_odd_answer_is_a_failure_with_its_words(
    lab: Any, monkeypatch: pytest.MonkeyPatch, answer: Answer, reason: str
) -> None:
    server = await lab.serve()
    monkeypatch.setattr(server.resource, "_answer", lambda asked: answer)
    assert await run_prompt(reactor, server.url) == Failed(reason.format(url=server.url))
