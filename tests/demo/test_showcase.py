"""``comfyproxy demo``, as a process and in this one."""

import re
import signal
import socket
import subprocess
import sys
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from rich.console import Console
from twisted.internet.defer import Deferred

from comfyproxy.demo import showcase
from comfyproxy.demo.first_prompt import Failed, Finished, Picture, Queued, Step
from comfyproxy.demo.showcase import Demo

DEMO = [sys.executable, "-m", "comfyproxy.cli", "demo"]


def test_a_first_prompt_goes_through_the_proxy(tmp_path: Path) -> None:
    # Neither of these is meant for the demo.
    (tmp_path / ".env").write_text("DEV_SERVER_COMFYUI_URL=http://nowhere.invalid:1\n")
    (tmp_path / "tap.conf").write_text('url = "http://nowhere.invalid:1"\n')
    demo = subprocess.run(
        [*DEMO, "--servers", "2", "--port", "0", "--once"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=45,
    )
    assert demo.returncode == 0, demo.stderr
    assert "simulated ComfyUI 1: gpu-2 at http://127.0.0.1:" in demo.stdout
    assert re.search(r"demo_00001_\.png, \d+ octets, made by gpu-[12]", demo.stdout)
    assert demo.stderr == ""


@pytest.mark.parametrize("arguments", [[], ["--once"]])
def test_without_its_port_it_says_so_and_ends(tmp_path: Path, arguments: list[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        demo = subprocess.run(
            [*DEMO, "--port", port, "--servers", "1", *arguments],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=45,
        )
    assert demo.returncode == 1
    said = " ".join(demo.stdout.split())
    assert f"The demo cannot run: Couldn't listen on 127.0.0.1:{port}: [Errno" in said
    assert demo.stderr == ""


@pytest.mark.skipif(sys.platform == "win32", reason="signals end it")
def test_it_may_be_ended_in_the_middle_of_the_prompt(tmp_path: Path) -> None:
    with subprocess.Popen(
        [*DEMO, "--port", "0", "--servers", "1"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as demo:
        assert demo.stdout is not None
        while "comfyproxy before them at" not in demo.stdout.readline():
            continue
        demo.send_signal(signal.SIGTERM)
        printed, errors = demo.communicate(timeout=20)
    assert (demo.returncode, errors) == (0, "")
    assert "failed" not in printed


class Stoppable:
    """The running reactor, which goes on when it is told to stop."""

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self.stopped: Deferred[None] = Deferred()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reactor, name)

    def stop(self) -> None:
        self.stopped.callback(None)


class Terminal(StringIO):
    """What is printed; ``until`` waits for some of it."""

    def __init__(self) -> None:
        super().__init__()
        self._waiting: list[tuple[str, Deferred[None]]] = []

    def until(self, text: str) -> "Deferred[None]":
        waiting: Deferred[None] = Deferred()
        self._waiting.append((text, waiting))
        return waiting

    def write(self, text: str) -> int:
        count = super().write(text)
        for entry in [entry for entry in self._waiting if entry[0] in self.getvalue()]:
            self._waiting.remove(entry)
            entry[1].callback(None)
        return count


@pytest.fixture
def terminal() -> Terminal:
    return Terminal()


@pytest_twisted.ensureDeferred
async def test_it_goes_on_until_it_is_ended(
    running_reactor: Any, terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def succeed(reactor: Any, url: str, report: Any) -> Finished:
        report(Queued("1", 1))
        report(Step(1, 20))
        return Finished("1", (Picture("demo.png", "", "output", b"123", "gpu-1"),))

    monkeypatch.setattr(showcase, "run_prompt", succeed)
    reactor = Stoppable(running_reactor)
    demo = Demo(reactor, Console(file=terminal, width=200), 1, 0)
    ready = terminal.until("Ctrl-C ends the demo")
    demo.startService()
    await ready
    printed = terminal.getvalue()
    assert "demo.png, 3 octets, made by gpu-1" in printed
    assert re.search(r"Open http://127\.0\.0\.1:\d+/ and press Run", printed)
    assert re.search(r"curl -i http://127\.0\.0\.1:\d+/system_stats", printed)
    assert (demo.has_run, demo.succeeded, reactor.stopped.called) == (True, True, False)
    await demo.stopService()


@pytest.mark.parametrize("then_stop", [True, False])
@pytest_twisted.ensureDeferred
async def test_a_prompt_that_fails_is_told_with_its_reason(
    running_reactor: Any, terminal: Terminal, monkeypatch: pytest.MonkeyPatch, then_stop: bool
) -> None:
    async def fail(*ignored: object) -> Failed:
        return Failed("the [/odd] server said [red]no")

    monkeypatch.setattr(showcase, "run_prompt", fail)
    reactor = Stoppable(running_reactor)
    demo = Demo(reactor, Console(file=terminal, width=200), 2, 0, then_stop)
    told = terminal.until("the [/odd] server said [red]no")
    demo.startService()
    await told
    assert (demo.has_run, demo.succeeded, reactor.stopped.called) == (True, False, then_stop)
    await demo.stopService()


@pytest_twisted.ensureDeferred
async def test_ending_it_says_nothing_of_what_is_cut_short(
    running_reactor: Any, terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: Deferred[None] = Deferred()
    answer: Deferred[Failed] = Deferred()

    async def wait(*ignored: object) -> Failed:
        asked.callback(None)
        return await answer

    monkeypatch.setattr(showcase, "run_prompt", wait)
    reactor = Stoppable(running_reactor)
    demo = Demo(reactor, Console(file=terminal, width=200), 1, 0, then_stop=True)
    demo.startService()
    await asked
    await demo.stopService()
    answer.callback(Failed("the server is gone"))
    assert "the server is gone" not in terminal.getvalue()
    assert not reactor.stopped.called
