"""Servers that are one ComfyUI, when they fail: no prompt is lost, and each client hears of each end once."""

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from uuid import uuid4

import pytest
from fault_rig.daemon import Daemon, StartDaemon, wait_until
from fault_rig.load import SIMULATED_COMFYUI, NamedServer
from fault_rig.pages import Lists, Page, ask, behave, misbehave, runs_of
from fault_rig.peers import PATIENCE

from comfyproxy.demo.first_prompt import demo_workflow

OPTIONS = (
    "--placement",
    "prompt",
    "--probe-interval",
    "0.5s",
    "--probe-timeout",
    "0.5s",
    "--probe-rise",
    "1",
)
COUNT = 3

StartPool = Callable[..., Daemon]


@pytest.fixture(scope="module")
def journal(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file that has a line for each prompt that began to run."""
    return tmp_path_factory.mktemp("journal") / "journal"


@pytest.fixture(scope="module")
def gpus(journal: Path) -> Iterator[list[NamedServer]]:
    """Three simulated servers that are processes, running."""
    servers = [NamedServer(f"gpu-{number}", SIMULATED_COMFYUI, journal) for number in range(COUNT)]
    try:
        for server in servers:
            server.start()
        yield servers
    finally:
        for server in servers:
            server.close()


@pytest.fixture(scope="module")
def proxy(gpus: list[NamedServer], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A proxy before them that has met them all, for the whole file; nothing raises in it."""
    directory = tmp_path_factory.mktemp("daemon")
    daemon = Daemon(directory, *OPTIONS, "--url", ",".join(server.url for server in gpus), quiet=False)
    try:
        wait_until(lambda: ask(daemon.port, "GET", "/queue")[1] == EMPTY, lambda: "an empty queue")
        yield daemon
        assert "Traceback" not in daemon.log, daemon.log
    finally:
        daemon.kill()


EMPTY = {"queue_running": [], "queue_pending": []}


def pages(running: ExitStack, daemon: Daemon, count: int = 4) -> list[Page]:
    """So many pages with an open WebSocket."""
    return [running.enter_context(Page(daemon.port, uuid4().hex)) for _ in range(count)]


def assert_all_told(everybody: list[Page]) -> None:
    """Each prompt has ended for its page, once."""
    for page in everybody:
        page.wait_for_ends()
    for page in everybody:
        page.assert_one_ending_each()


def assert_none_ran_twice(journal: Path, everybody: list[Page]) -> None:
    """Each prompt began once at most, on whichever server, and those that succeeded did begin."""
    runs = runs_of(journal)
    for page in everybody:
        for prompt_id in page.submitted:
            has_succeeded = page.endings[prompt_id] == ["execution_success"]
            assert has_succeeded <= runs[prompt_id] <= 1, (prompt_id, runs[prompt_id], page)


def running_on(gpus: list[NamedServer]) -> list[NamedServer]:
    """The servers that have something to run."""
    return [gpu for gpu in gpus if ask(gpu.port, "GET", "/queue")[1]["queue_running"]]


def test_a_killed_server_loses_no_prompt_that_had_not_begun(
    proxy: Daemon, gpus: list[NamedServer], journal: Path
) -> None:
    with ExitStack() as running:
        running.enter_context(Lists(proxy.port))
        everybody = pages(running, proxy)
        for page in everybody:
            for _ in range(4):
                page.submit(0.3)
        victim = running_on(gpus)[0]
        victim.kill()
        assert_all_told(everybody)
        endings = [page.endings[one][0] for page in everybody for one in page.submitted]
        assert endings.count("execution_error") <= 1, "more than the one that ran"
        assert_none_ran_twice(journal, everybody)
        victim.start()


def test_a_restarted_server_gets_work_again_and_its_old_prompts_go_on(
    proxy: Daemon, gpus: list[NamedServer], journal: Path
) -> None:
    with ExitStack() as running:
        running.enter_context(Lists(proxy.port))
        everybody = pages(running, proxy)
        for page in everybody:
            for _ in range(4):
                page.submit(0.3)
        victim = running_on(gpus)[0]
        victim.kill()
        victim.start()
        assert_all_told(everybody)
        assert_none_ran_twice(journal, everybody)
        lines = journal.read_text().count(f"{victim.name} ")
        # It is tried again within a second or two; on a fast machine the others have done all this by then.
        deadline = time.monotonic() + PATIENCE
        while journal.read_text().count(f"{victim.name} ") <= lines:
            assert time.monotonic() < deadline, "the restarted server stays idle"
            for page in everybody:
                for _ in range(3):
                    page.submit(0.2)
            assert_all_told(everybody)


def test_a_server_that_hangs_keeps_nobody_waiting(proxy: Daemon, gpus: list[NamedServer]) -> None:
    with ExitStack() as running:
        running.enter_context(Lists(proxy.port))
        everybody = pages(running, proxy)
        for page in everybody:
            for _ in range(2):
                page.submit(0.3)
        victim = running_on(gpus)[0]
        victim.stop()
        running.callback(victim.go_on)
        page = everybody[0]
        late = [page.submit(0.1) for _ in range(3)]
        wait_until(lambda: all(page.through[one] for one in late), lambda: f"{late} of {page}")
        victim.go_on()
        assert_all_told(everybody)


@pytest.mark.parametrize(
    "how", ["garbage", "nothing", "a list", "wrong types", "deep", "no numbers", "broken", "cut"]
)
def test_garbage_instead_of_lists_and_sockets_loses_nothing(
    how: str, proxy: Daemon, gpus: list[NamedServer], journal: Path
) -> None:
    with ExitStack() as running:
        everybody = pages(running, proxy, 2)
        for path in ("/queue", "/history", "/prompt", "/api/jobs", "/jobs", "/object_info"):
            misbehave(gpus[0].port, path, how)
        with Lists(proxy.port, pause=0.01) as lists:
            for page in everybody:
                for _ in range(3):
                    page.submit(0.02)
            assert_all_told(everybody)
            seen = lists.count
            wait_until(lambda: lists.count > seen + 7, lambda: "lists")
        misbehave(gpus[0].port, "/ws", how)
        behave(gpus[0].port)
        assert_none_ran_twice(journal, everybody)
        assert {one for page in everybody for end in page.endings.values() for one in end} == {
            "execution_success"
        }


SAID = (
    b"",
    b"null",
    b"[]",
    b'{"type": "status"}',
    b'{"type": "status", "data": {"status": {"exec_info": {"queue_remaining": 1e999}}}}',
    b'{"type": "status", "data": {"status": {"exec_info": {"queue_remaining": 100000000000000000000}}}}',
    b'{"type": ["execution_start"], "data": {"prompt_id": {}}}',
    b'{"type": "execution_start", "data": {"prompt_id": 5, "timestamp": "x"}}',
    b'{"type": "execution_start", "data": {"prompt_id": "\\ud800", "timestamp": NaN}}',
    b'{"type": "executing", "data": {"prompt_id": "\\ud800", "node": {"a": []}}}',
    b'{"type": "executed", "data": {"prompt_id": "\\ud800", "output": [[["x"]]]}}',
    b'{"type": "executed", "data": {"prompt_id": "\\ud800", "output": {"images": [{"filename": 5}]}}}',
    b'{"type": "execution_success", "data": {"prompt_id": "\\ud800", "timestamp": [1]}}',
    b'{"type": "executed", "data": {"prompt_id": "x", "output": ' + b"[" * 50_000 + b"]" * 50_000 + b"}}",
    b'{"type": "feature_flags", "data": ' + b'{"a":' * 900 + b"1" + b"}" * 900 + b"}",
    b'{"type": "execution_error", "data": {"prompt_id": "y", "traceback": "' + b"x" * 5_000_000 + b'"}}',
    b'{"type": "progress_state", "data": {"prompt_id": "y", "nodes": {' + b"}}}",
)


def test_events_that_are_none_disturb_nobody(proxy: Daemon, gpus: list[NamedServer]) -> None:
    with ExitStack() as running:
        everybody = pages(running, proxy, 2)
        ids = [page.submit(0.3) for page in everybody for _ in range(2)]
        for gpu in gpus:
            for payload in SAID:
                assert ask(gpu.port, "POST", "/say", payload)[0] == 200
                assert ask(gpu.port, "POST", "/say?binary=1", payload)[0] == 200
            for kind in range(6):
                octets = kind.to_bytes(4, "big") + b"\xff\xff\xff\xff" + b"x" * 40
                assert ask(gpu.port, "POST", "/say?binary=1", octets)[0] == 200
        for page in everybody:
            page.wait_for_ends()
        said = [page.endings[one] for page in everybody for one in page.submitted]
        assert said == [["execution_success"]] * len(ids)
    assert "Traceback" not in proxy.log, proxy.log


@pytest.mark.parametrize("how", ["cut", "cut after"])
def test_a_reset_in_the_middle_of_a_submission_neither_loses_nor_doubles_it(
    how: str, proxy: Daemon, gpus: list[NamedServer], journal: Path
) -> None:
    with ExitStack() as running:
        everybody = pages(running, proxy, 2)
        misbehave(gpus[0].port, "/prompt", how)
        running.callback(behave, gpus[0].port)
        for page in everybody:
            for _ in range(4):
                page.submit(0.05)
        assert_all_told(everybody)
        assert_none_ran_twice(journal, everybody)


def test_a_flapping_server_costs_only_what_it_ran(
    proxy: Daemon, gpus: list[NamedServer], journal: Path
) -> None:
    with ExitStack() as running:
        running.enter_context(Lists(proxy.port))
        everybody = pages(running, proxy)
        for _ in range(3):
            for page in everybody:
                page.submit(0.15)
            gpus[1].kill()
            for page in everybody:
                page.submit(0.05)
            gpus[1].start()
        assert_all_told(everybody)
        endings = [page.endings[one][0] for page in everybody for one in page.submitted]
        assert endings.count("execution_error") <= 3, "more than ran at the times of its deaths"
        assert_none_ran_twice(journal, everybody)


def test_a_reload_that_takes_servers_away_and_brings_others_loses_nothing(
    start_daemon: StartDaemon, gpus: list[NamedServer], journal: Path, tmp_path: Path
) -> None:
    file = tmp_path / "servers.txt"
    file.write_text(f"{gpus[0].url}\n{gpus[1].url}\n")
    daemon = start_daemon(*OPTIONS, "--file", file, quiet=False)
    with ExitStack() as running:
        running.enter_context(Lists(daemon.port))
        everybody = pages(running, daemon)
        for page in everybody:
            for _ in range(3):
                page.submit(0.25)
        file.write_text(f"{gpus[1].url}\n{gpus[2].url}\n")
        before = len(daemon.log)
        daemon.reload()
        daemon.wait_for_log("Pool default", before)
        for page in everybody:
            page.submit(0.1)
        assert_all_told(everybody)
        assert_none_ran_twice(journal, everybody)
        said = {one for page in everybody for end in page.endings.values() for one in end}
        assert said == {"execution_success"}, "what ran on the server that was removed was cut off"
        assert f"{gpus[2].name} " in journal.read_text()


def test_a_proxy_that_is_told_to_stop_says_goodbye_and_the_prompts_go_on(
    start_daemon: StartDaemon, gpus: list[NamedServer], journal: Path
) -> None:
    options = (*OPTIONS, "--url", ",".join(gpu.url for gpu in gpus))
    first = start_daemon(*options, quiet=False)
    with ExitStack() as running:
        everybody = pages(running, first)
        for page in everybody:
            for _ in range(3):
                page.submit(0.4)
        first.process.send_signal(signal.SIGTERM)
        wait_until(lambda: all(page.codes for page in everybody), lambda: f"goodbyes: {everybody}")
        assert {page.codes[0] for page in everybody} == {1001}
        first.process.wait(PATIENCE)
        go_on_with(start_daemon(*options, quiet=False), everybody)
        assert_none_ran_twice(journal, everybody)


def test_a_proxy_that_is_killed_and_started_again_goes_on(
    start_daemon: StartDaemon, gpus: list[NamedServer], journal: Path
) -> None:
    options = (*OPTIONS, "--url", ",".join(gpu.url for gpu in gpus))
    first = start_daemon(*options, quiet=False)
    with ExitStack() as running:
        everybody = pages(running, first)
        for page in everybody:
            for _ in range(3):
                page.submit(0.4)
        first.process.kill()
        first.process.wait()
        go_on_with(start_daemon(*options, quiet=False), everybody)
        assert_none_ran_twice(journal, everybody)


def go_on_with(second: Daemon, everybody: list[Page]) -> None:
    """Another proxy is there now; each prompt ends, for its page too if it had not ended already."""
    for page in everybody:
        page.port = second.port
    wait_until(
        lambda: all(page.greetings > 1 for page in everybody), lambda: f"greetings of the second: {everybody}"
    )

    def all_ended() -> bool:
        return ask(second.port, "GET", "/queue")[1] == EMPTY

    wait_until(all_ended, lambda: f"the ends: {ask(second.port, 'GET', '/queue')}")
    history = ask(second.port, "GET", "/history")[1]
    for page in everybody:
        for prompt_id in page.submitted:
            assert history[prompt_id]["status"]["completed"], "it did not run to its end"
            assert len(page.endings[prompt_id]) <= 1, page


HOSTILE = (
    *({"number": value} for value in (float("nan"), float("-inf"), 1e308, 10**400, "x", [], {}, None, True)),
    *({"extra_data": value} for value in ("x", 5, [], None, {"client_id": 5}, {"create_time": float("inf")})),
    *(
        {"prompt_id": value}
        for value in ("", "x" * 1_000_000, "../../x", "a/b?c#d", "\ud800", "\0", 5, [], {})
    ),
    *(
        {"client_id": value}
        for value in ("", "x" * 1_000_000, "a b\r\nX: y", "\ud800", "\0", 5, [], {}, True)
    ),
    *({"prompt": value} for value in ({"1": 5}, {"1": {"class_type": [], "inputs": 5}}, [], None, "x")),
)
BODIES = (
    b"",
    b"[",
    b"null",
    b"\xff",
    b'{"a":' * 100_000,
    b"[" * 1_000_000,
    b'{"delete": [{}, 5, null, "\\ud800"]}',
)


def test_hostile_input_raises_nothing_and_holds_up_nobody(proxy: Daemon, gpus: list[NamedServer]) -> None:
    with ExitStack() as running:
        everybody = pages(running, proxy, 2)
        for members in HOSTILE:
            ask(proxy.port, "POST", "/prompt", {"prompt": demo_workflow(seconds=0.1), **members})
        for body in BODIES:
            for target in ("/prompt", "/queue", "/history", "/interrupt", "/free", "/api/jobs/cancel"):
                ask(proxy.port, "POST", target, body)
        for target in (
            "/history?max_items=1e999",
            "/history/%00",
            "/api/jobs?limit=-1&offset=x",
            "/api/jobs/%ff",
        ):
            assert ask(proxy.port, "GET", target)[0] < 500, target
        for number in range(100):
            with proxy.connect() as client:
                client.send(OPENING % (b"gone-%d" % number))
                client.read_head()
        crowd = [running.enter_context(proxy.connect()) for _ in range(20)]
        for client in crowd:
            client.send(OPENING % b"the-same")
            client.read_head()
        one = str(uuid4())
        told = [page.try_to_submit(0.1, prompt_id=one)[0] for page in everybody]
        assert told == [200, 200]
        for page in everybody:
            page.submit(0.05)
            wait_until(lambda page=page: not page.waits_for[1:], lambda: f"{everybody}")
        wait_until(lambda: ask(proxy.port, "GET", "/queue")[1] == EMPTY, lambda: "an empty queue")
    assert "Traceback" not in proxy.log, proxy.log


OPENING = (
    b"GET /ws?clientId=%b HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


def test_nothing_is_left_of_clients_and_prompts_that_are_gone(proxy: Daemon, gpus: list[NamedServer]) -> None:
    with ExitStack() as running:
        everybody = pages(running, proxy, 2)
        for page in everybody:
            page.submit()
        assert_all_told(everybody)
    state = proxy.wait_for_state(
        lambda state: not any(state.objects[what] for what in GONE), "what was of prompts that have ended"
    )
    assert state.objects["ClientSession"] <= 200, "more than all tests together have had"


GONE = ("Joined", "Prompt", "Running", "Question", "Opening")
"""What lives no longer than a WebSocket, a prompt or a request. (Stories wait for pages that come back.)"""
