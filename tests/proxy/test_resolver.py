"""Names and their addresses: kept for as long as they hold, used in turn, not lost when nobody answers."""

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.task import deferLater

from comfyproxy.proxy import nameservers
from comfyproxy.proxy import resolver as module
from comfyproxy.proxy.resolver import PATIENCE, TRY_AGAIN, Resolver
from comfyproxy.testing import MemoryNetwork
from tests.proxy.lying_name_servers import NameServer


class Slow(MemoryNetwork):
    """A system that answers when it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = 0
        self.is_slow = False
        self._late: list[Callable[[], Any]] = []

    def resolveHostName(
        self,
        receiver: Any,
        hostName: str,
        *rest: Any,
        **options: Any,
    ) -> Any:
        self.asked += 1
        if not self.is_slow:
            return super().resolveHostName(receiver, hostName, *rest, **options)
        self._late.append(lambda: super(Slow, self).resolveHostName(receiver, hostName, *rest, **options))
        return None

    def answer(self) -> None:
        late, self._late = self._late, []
        for one in late:
            one()
        self.run()


@pytest.fixture
def system() -> Slow:
    system = Slow()
    system.names["gpu1"] = ["10.0.0.1"]
    return system


class Asked(list[Any]):
    """What was told of a name, one entry for each question."""

    def __init__(self, system: Slow, resolver: Resolver) -> None:
        super().__init__()
        self._system = system
        self._resolver = resolver

    def ask(self, host: str = "gpu1") -> Any:
        """Ask, run, and return what was told so far, if anything."""
        self._resolver.resolve(host, self.append)
        self._system.run()
        return self[-1] if self else None


@pytest.fixture
def asked(system: Slow) -> Asked:
    return Asked(system, Resolver(system, interval=10))


def test_addresses_are_kept_for_the_interval(system: Slow, asked: Asked) -> None:
    assert asked.ask() == ("10.0.0.1",)
    system.names["gpu1"] = ["10.0.0.2"]
    system.advance(9.9)
    assert (asked.ask(), system.asked) == (("10.0.0.1",), 1)
    system.advance(0.2)
    assert (asked.ask(), system.asked) == (("10.0.0.2",), 2)


def test_without_an_interval_every_connection_asks(system: Slow) -> None:
    asked = Asked(system, Resolver(system, interval=0))
    for number in range(1, 4):
        system.names["gpu1"] = [f"10.0.0.{number}"]
        assert asked.ask() == (f"10.0.0.{number}",)
    assert system.asked == 3


def test_who_asks_at_the_same_time_asks_once(system: Slow, asked: Asked) -> None:
    system.is_slow = True
    for _ in range(3):
        asked.ask()
    assert (asked, system.asked) == ([], 1)
    system.answer()
    assert asked == [("10.0.0.1",)] * 3


def test_all_addresses_are_used_in_turn(system: Slow, asked: Asked) -> None:
    system.names["gpu1"] = ["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.1"]
    assert [asked.ask()[0] for _ in range(4)] == ["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.1"]
    assert asked[1] == ("10.0.0.2", "10.0.0.3", "10.0.0.1")


def test_one_that_did_not_answer_is_tried_last_until_the_name_is_asked_for_again(
    system: Slow, asked: Asked
) -> None:
    resolver = asked._resolver
    system.names["gpu1"] = ["10.0.0.1", "10.0.0.2"]
    asked.ask()
    resolver.suspect("gpu1", "10.0.0.2")
    resolver.suspect("nobody", "10.0.0.2")
    assert [asked.ask() for _ in range(2)] == [("10.0.0.1", "10.0.0.2")] * 2
    system.advance(11)
    assert {asked.ask() for _ in range(2)} == {("10.0.0.1", "10.0.0.2"), ("10.0.0.2", "10.0.0.1")}


def test_a_name_that_fails_keeps_its_last_addresses_and_says_so_once(
    system: Slow, asked: Asked, caplog: pytest.LogCaptureFixture
) -> None:
    asked.ask()
    system.names.clear()
    for _ in range(5):
        system.advance(11)
        assert asked.ask() == ("10.0.0.1",)
    assert caplog.messages == ["The name gpu1 cannot be resolved now; its last addresses are used: 10.0.0.1."]
    assert system.asked == 6
    system.names["gpu1"] = ["10.0.0.2"]
    system.advance(11)
    assert asked.ask() == ("10.0.0.2",)
    assert caplog.messages[1:] == ["The name gpu1 can be resolved again."]


def test_a_name_that_fails_is_asked_for_again_soon_but_not_at_once(system: Slow, asked: Asked) -> None:
    asked.ask()
    system.names.clear()
    system.advance(11)
    asked.ask()
    system.advance(TRY_AGAIN - 0.1)
    asked.ask()
    assert system.asked == 2
    system.advance(0.2)
    asked.ask()
    assert system.asked == 3


def test_that_a_name_does_not_exist_is_not_kept(
    system: Slow, asked: Asked, caplog: pytest.LogCaptureFixture
) -> None:
    assert asked.ask("gpu2") == ()
    system.names["gpu2"] = ["10.0.0.2"]
    assert asked.ask("gpu2") == ("10.0.0.2",)
    assert caplog.messages == []


def test_nobody_waits_long_where_old_addresses_are_known(system: Slow, asked: Asked) -> None:
    asked.ask()
    system.advance(11)
    system.is_slow = True
    asked.ask()
    system.advance(PATIENCE - 0.1)
    assert len(asked) == 1
    system.advance(0.2)
    assert asked == [("10.0.0.1",)] * 2
    # Whoever comes while it still takes does not wait at all.
    asked.ask()
    assert (asked, system.asked) == ([("10.0.0.1",)] * 3, 2)
    system.names["gpu1"] = ["10.0.0.2"]
    system.answer()
    assert asked.ask() == ("10.0.0.2",)
    assert system.getDelayedCalls() == []


def test_what_the_system_raises_is_logged_and_the_name_has_no_address(
    system: Slow, asked: Asked, monkeypatch: pytest.MonkeyPatch, flush_logged_errors: Any
) -> None:
    monkeypatch.setattr(system, "resolveHostName", lambda *_, **__: 1 / 0)
    assert asked.ask() == ()
    assert len(flush_logged_errors(ZeroDivisionError)) == 1
    monkeypatch.undo()
    assert asked.ask() == ("10.0.0.1",)


def test_who_fails_at_being_told_harms_nobody(asked: Asked, flush_logged_errors: Any) -> None:
    asked._resolver.resolve("gpu1", lambda addresses: 1 / 0)
    assert asked.ask() == ("10.0.0.1",)
    assert len(flush_logged_errors(ZeroDivisionError)) == 1
    assert asked.ask() == ("10.0.0.1",)


def test_what_is_known_is_bounded(system: Slow, asked: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_NAMES", 3)
    for name in ("a", "b", "c", "a", "d", "a"):
        system.names[name] = ["10.0.0.1"]
        asked.ask(name)
    assert (len(asked._resolver), system.asked) == (3, 4)


def test_stopping_leaves_nothing(system: Slow, asked: Asked) -> None:
    asked.ask()
    system.advance(11)
    system.is_slow = True
    asked.ask()
    asked._resolver.stop()
    assert system.getDelayedCalls() == []
    system.answer()
    assert len(asked) == 1


# With name servers


@pytest_twisted.async_yield_fixture
async def server(running_reactor: Any) -> AsyncIterator[NameServer]:
    server = NameServer(running_reactor)
    yield server
    await maybeDeferred(server.port.stopListening)


@pytest.fixture
def make(running_reactor: Any, tmp_path: Path, server: NameServer) -> Callable[..., Resolver]:
    """Makes resolvers that ask the name server, with these hosts."""

    def make(hosts: str = "", system: bool = False, **options: Any) -> Resolver:
        (tmp_path / "hosts").write_text(hosts)
        servers = () if system else (server.at,)
        files = {"hosts": str(tmp_path / "hosts"), "resolv_conf": str(tmp_path / "resolv.conf")}
        return Resolver(running_reactor, servers=servers, **files, **options)

    return make


def resolved(resolver: Resolver, host: str = "gpu1") -> "Deferred[tuple[str, ...]]":
    answer: Deferred[tuple[str, ...]] = Deferred()
    resolver.resolve(host, answer.callback)
    return answer


@pytest_twisted.ensureDeferred
async def test_a_ttl_below_the_interval_counts(
    make: Callable[..., Resolver], server: NameServer, running_reactor: Any
) -> None:
    resolver = make(interval=60)
    server.know("gpu1", "10.0.0.1", ttl=0)
    server.know("gpu2", "10.0.0.2", ttl=2**31 - 1)
    for _ in range(3):
        assert await resolved(resolver) == ("10.0.0.1",)
        assert await resolved(resolver, "gpu2") == ("10.0.0.2",)
    assert sorted(name for name, _ in server.asked) == ["gpu1"] * 2 + ["gpu2"] * 2
    await deferLater(running_reactor, module.SHORTEST + 0.1)
    await resolved(resolver)
    await resolved(resolver, "gpu2")
    assert sorted(name for name, _ in server.asked) == ["gpu1"] * 4 + ["gpu2"] * 2


@pytest_twisted.ensureDeferred
async def test_hosts_go_before_name_servers_and_are_read_again_when_they_change(
    make: Callable[..., Resolver], server: NameServer, tmp_path: Path
) -> None:
    server.know("gpu1", "10.0.0.1")
    resolver = make("10.9.9.9 GPU1 # here\n", interval=0)
    assert await resolved(resolver) == await resolved(resolver, "Gpu1.") == ("10.9.9.9",)
    assert server.asked == []
    (tmp_path / "hosts").write_text("10.9.9.10 gpu1 gpu1.example\n")
    assert await resolved(resolver) == ("10.9.9.10",)
    (tmp_path / "hosts").unlink()
    assert await resolved(resolver) == ("10.0.0.1",)


@pytest_twisted.ensureDeferred
async def test_a_name_server_that_is_given_is_the_last_word(
    make: Callable[..., Resolver], server: NameServer
) -> None:
    assert await resolved(make(), "gpu1") == ()
    # The system would know it.
    assert await resolved(make(), "localhost") == ()
    assert {name for name, _ in server.asked} == {"gpu1"}


@pytest_twisted.ensureDeferred
async def test_one_that_is_dead_costs_no_addresses(
    make: Callable[..., Resolver], server: NameServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nameservers, "PATIENCE", 0.05)
    resolver = make(interval=0)
    server.know("gpu1", "10.0.0.1")
    assert await resolved(resolver) == ("10.0.0.1",)
    server.answer = lambda question: None
    assert await resolved(resolver) == ("10.0.0.1",)


@pytest.mark.parametrize("resolv_conf", [None, "", "nameserver 127.0.0.1\noptions timeout:1 attempts:1\n"])
@pytest_twisted.ensureDeferred
async def test_what_name_servers_do_not_know_the_system_may(
    make: Callable[..., Resolver], tmp_path: Path, resolv_conf: str | None
) -> None:
    if resolv_conf is not None:
        (tmp_path / "resolv.conf").write_text(resolv_conf)
    assert set(await resolved(make(system=True), "localhost")) <= {"127.0.0.1", "::1"}


@pytest_twisted.ensureDeferred
async def test_the_system_s_name_servers_are_asked(
    make: Callable[..., Resolver], tmp_path: Path, server: NameServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("comfyproxy.core.names.DNS_PORT", server.at[1])
    (tmp_path / "resolv.conf").write_text("nameserver 127.0.0.1\nsearch rack.example\n")
    server.know("gpu1.rack.example", "10.0.0.1")
    assert await resolved(make(system=True)) == ("10.0.0.1",)
