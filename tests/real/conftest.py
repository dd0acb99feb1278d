"""The real-peer tests: a real ComfyUI, a real browser, and HTTP and WebSocket programs of other makes.

What each test needs is installed by `.ci/provision-real`; where it is not, the test is skipped and says why.
With `COMFYPROXY_REAL_DIRECT=1` the tests speak to the servers with no proxy between, which shows that a test
that fails through the proxy fails because of it; those that are about the proxy itself are then skipped.

These tests never use Twisted's reactor: the proxy is a process of its own. They are called outside of it,
where pytest-timeout's signal and Playwright's greenlets work; asynchronous ones run on one asyncio loop.
"""

import asyncio
import inspect
import sys
from collections.abc import Coroutine, Generator, Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from real_peers import installed
from real_peers.comfyui import ComfyUI
from real_peers.content import Content, write_content
from real_peers.processes import ServerProcesses
from real_peers.proxy import DIRECT, Front, Proxy, StartProxy

CANCEL_AT = 0.9
"""An asynchronous test is cancelled after this share of its timeout: its traceback shows where it waited."""

PROCESSES = pytest.StashKey[ServerProcesses]()


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "real: needs a real ComfyUI or a real browser; skipped where there is none"
    )


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool:
    """Call the test here and now, or run it on the asyncio loop, instead of inside Twisted's reactor."""
    names = inspect.signature(pyfuncitem.obj).parameters
    result = pyfuncitem.obj(**{name: pyfuncitem.funcargs[name] for name in names})
    if inspect.iscoroutine(result):
        runner = pyfuncitem.funcargs["event_loop_runner"]
        assert isinstance(runner, asyncio.Runner)
        runner.run(_bounded(result, _timeout(pyfuncitem) * CANCEL_AT))
    return True


def _timeout(pyfuncitem: pytest.Function) -> float:
    marker = pyfuncitem.get_closest_marker("timeout")
    return float(marker.args[0] if marker else pyfuncitem.config.getini("timeout") or 60)


async def _bounded(test: Coroutine[Any, Any, None], seconds: float) -> None:
    async with asyncio.timeout(seconds):
        await test


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show with a failure what the servers that run at that moment printed last."""
    report = yield
    if report.failed and (processes := item.session.stash.get(PROCESSES, None)):
        for server in processes.running:
            report.sections.append((f"{server.name}: end of {server.log}", server.log_tail()))
    return report


@pytest.fixture(scope="session", autouse=True)
def event_loop_runner() -> Iterator[asyncio.Runner]:
    """The asyncio loop of all asynchronous tests and of the servers that live in the tests' process."""
    with asyncio.Runner() as runner:
        yield runner


@pytest.fixture(scope="session")
def processes(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServerProcesses]:
    """Starts server processes that end with the session at the latest."""
    processes = ServerProcesses(tmp_path_factory.mktemp("logs"))
    request.session.stash[PROCESSES] = processes
    yield processes
    processes.stop_all()


@pytest.fixture(scope="session")
def content(tmp_path_factory: pytest.TempPathFactory) -> Content:
    """The large file of the tests with plain services."""
    return write_content(tmp_path_factory.mktemp("content") / "large.bin")


@pytest.fixture(scope="session")
def comfyuis(processes: ServerProcesses, tmp_path_factory: pytest.TempPathFactory) -> tuple[ComfyUI, ...]:
    """Two real ComfyUI servers; they start at the same time."""
    if reason := installed.why_no_comfyui():
        pytest.skip(reason)
    directory = tmp_path_factory.mktemp("comfyui")
    servers = (ComfyUI(processes, directory / "a"), ComfyUI(processes, directory / "b"))
    for server in servers:
        server.wait()
    return servers


@pytest.fixture(scope="module")
def start_proxy(processes: ServerProcesses, tmp_path_factory: pytest.TempPathFactory) -> Iterator[StartProxy]:
    """Starts daemons that live until the end of the module: `start_proxy("--url", ...) -> Proxy`."""
    yield from _proxies(processes, tmp_path_factory)


@pytest.fixture
def proxy(processes: ServerProcesses, tmp_path_factory: pytest.TempPathFactory) -> Iterator[StartProxy]:
    """Starts daemons that live until the end of the test: `proxy("--url", ...) -> Proxy`."""
    yield from _proxies(processes, tmp_path_factory)


def _proxies(processes: ServerProcesses, directories: pytest.TempPathFactory) -> Iterator[StartProxy]:
    """Starts daemons, and fails at the end when one of them has ended by itself."""
    if DIRECT:
        pytest.skip("COMFYPROXY_REAL_DIRECT is set, and this is about the proxy itself")
    started: list[Proxy] = []

    def start(*arguments: str | Path) -> Proxy:
        started.append(Proxy(processes, arguments, directories.mktemp("proxy")))
        return started[-1]

    yield start
    died = [one.process for one in started if not one.process.running]
    for one in started:
        processes.stop(one.process)
    assert not died, "\n".join(f"ended by itself with {one.exit_status}:\n{one.log_tail()}" for one in died)


@pytest.fixture(scope="module")
def front(request: pytest.FixtureRequest) -> Front:
    """The address under test for some servers: that of a proxy, or of the first server when there is none."""

    def address(*urls: str, options: tuple[str | Path, ...] = ()) -> str:
        if DIRECT:
            return urls[0]
        start: StartProxy = request.getfixturevalue("start_proxy")
        return start("--url", ",".join(urls), *options).url

    return address
