"""What routers do beside requests, as the service has it done: from its start to its end, over reloads."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor as global_reactor
from twisted.internet.task import deferLater

from comfyproxy.comfyui.router import RequestRouter
from comfyproxy.core.balancing.operations import Ask
from comfyproxy.service import routing
from comfyproxy.service.daemon import ProxyService


class Working(RequestRouter):
    """Asks its first server each time that it is asked, and counts the answers."""

    def __init__(self, pool: Any) -> None:
        self.pool = pool
        self.sessions: list[Any] = []
        self.wake: Callable[[], None] = lambda: None
        self.statuses: list[int] = []
        self.in_hand = 0
        self.is_settling = False

    def background(self, now: float) -> Any:
        yield self._ask()

    def settle(self, now: float) -> Any:
        self.is_settling = True
        yield self._ask()

    def _ask(self) -> Any:
        reply = yield Ask(self.pool.backends[0], b"GET", b"/queue")
        self.statuses.append(reply.status)

    async def asks(self) -> None:
        """Returns after the next answer."""
        count = len(self.statuses)
        self.wake()
        while len(self.statuses) == count:
            await deferLater(global_reactor, 0.005)


@pytest.fixture
def routers(monkeypatch: pytest.MonkeyPatch) -> list[Working]:
    """The routers of the pools of ComfyUI that are placed by prompt."""
    made: list[Working] = []

    def make_router(placement: str, pool: Any, **options: Any) -> Any:
        if placement != "prompt":
            return RequestRouter()
        made.append(Working(pool))
        return made[-1]

    monkeypatch.setattr(routing, "make_router", make_router)
    return made


@pytest_twisted.ensureDeferred
async def test_work_begins_with_the_service_and_ends_with_it(
    servers: Any, start_service: Callable[..., ProxyService], routers: list[Working]
) -> None:
    service = start_service(url=servers.start("a"), probe="none")
    (router,) = routers
    await router.asks()
    assert router.statuses[-1] == 200
    await service.stopService()
    count = len(router.statuses)
    router.wake()
    await deferLater(global_reactor, 0.02)
    assert len(router.statuses) == count


@pytest_twisted.ensureDeferred
async def test_a_service_does_not_end_before_backends_have_what_a_router_has_in_hand(
    servers: Any, start_service: Callable[..., ProxyService], routers: list[Working]
) -> None:
    service = start_service(url=servers.start("a"), probe="none")
    (router,) = routers
    router.in_hand = 1
    stopped = service.stopService()
    while not router.is_settling:
        await router.asks()
    assert not stopped.called
    await router.asks()
    router.in_hand = 0
    await stopped


@pytest_twisted.ensureDeferred
async def test_work_goes_on_over_a_reload_that_keeps_the_router(
    servers: Any, start_service: Callable[..., ProxyService], routers: list[Working], tmp_path: Path
) -> None:
    file = tmp_path / "servers.txt"
    file.write_text(servers.start("a"))
    service = start_service(file=[str(file)], probe="none")
    (router,) = routers
    await router.asks()
    file.write_text(servers.start("b"))
    service.reload()
    await router.asks()
    assert routers == [router]
    assert set(router.statuses) == {200}


@pytest_twisted.ensureDeferred
async def test_work_ends_with_a_reload_that_has_another_router(
    servers: Any, start_service: Callable[..., ProxyService], routers: list[Working], tmp_path: Path
) -> None:
    config = tmp_path / "tap.conf"
    url = servers.start("a")
    config.write_text(f'url = "{url}"\n')
    service = start_service(config=str(config), probe="none")
    (router,) = routers
    await router.asks()
    config.write_text(f'url = "{url}"\nplacement = "request"\n')
    service.reload()
    await deferLater(global_reactor, 0.02)
    count = len(router.statuses)
    router.wake()
    await deferLater(global_reactor, 0.02)
    assert len(router.statuses) == count
