"""The lean reactor does what Twisted's epoll reactor does, and calls nobody about what is not theirs."""

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from twisted.internet import default
from twisted.internet.error import ConnectionLost
from twisted.internet.interfaces import IHalfCloseableDescriptor, IReadWriteDescriptor
from twisted.internet.main import CONNECTION_DONE, CONNECTION_LOST
from twisted.python.failure import Failure
from zope.interface import directlyProvides, implementer

from comfyproxy.proxy import reactor as module

if sys.platform != "linux":
    pytest.skip("only Linux has epoll", allow_module_level=True)

from twisted.internet.epollreactor import EPollReactor

from comfyproxy.proxy.reactor import LeanReactor

ROOT = Path(__file__).resolve().parents[2]


@implementer(IReadWriteDescriptor)
class Selectable:
    """One end of a socket pair; what the reactor calls is remembered, and ``acts`` is done then."""

    def __init__(self, reactor: Any) -> None:
        self.reactor = reactor
        self.socket, self.peer = socket.socketpair()
        self.socket.setblocking(False)
        self.calls: list[str] = []
        self.acts: Callable[[], Any] = lambda: None
        self.lost: list[BaseException] = []

    def fileno(self) -> int:
        return self.socket.fileno()

    def logPrefix(self) -> str:
        return "selectable"

    def doRead(self) -> Any:
        self.calls.append("read")
        return self.acts()

    def doWrite(self) -> Any:
        self.calls.append("write")
        return self.acts()

    def connectionLost(self, reason: Failure) -> None:
        assert reason.value is not None
        self.lost.append(reason.value)

    def close(self) -> None:
        """Close both ends."""
        self.reactor.removeReader(self)
        self.reactor.removeWriter(self)
        self.socket.close()
        self.peer.close()


class HalfCloseable(Selectable):
    """One that is told when only the reading ended, as Twisted's connections are."""

    def readConnectionLost(self, reason: Failure) -> None:
        self.calls.append("read lost")

    def writeConnectionLost(self, reason: Failure) -> None:
        self.calls.append("write lost")


@pytest.fixture(params=[LeanReactor, EPollReactor])
def reactor(request: pytest.FixtureRequest) -> Iterator[Any]:
    """A reactor of ours, then Twisted's: what one does the other must do too."""
    reactor = request.param()
    yield reactor
    end(reactor)


@pytest.fixture
def lean() -> Iterator[LeanReactor]:
    """A reactor of ours."""
    reactor = LeanReactor()
    yield reactor
    end(reactor)


def end(reactor: Any) -> None:
    reactor.removeAll()
    for waker in reactor._internalReaders:
        waker.connectionLost(None)
    reactor._poller.close()


@pytest.fixture
def make(reactor: Any) -> Iterator[Callable[..., Selectable]]:
    """Makes selectables that are read by ``reactor``."""
    made: list[Selectable] = []

    def make(kind: type[Selectable] = Selectable, reads: bool = True) -> Selectable:
        made.append(kind(reactor))
        if reads:
            reactor.addReader(made[-1])
        return made[-1]

    yield make
    for one in made:
        one.close()


Make = Callable[..., Selectable]


def test_what_can_be_read_is_read_and_goes_on_being_so(reactor: Any, make: Make) -> None:
    one = make()
    reactor.doPoll(0)
    assert one.calls == []
    one.peer.send(b"x")
    reactor.doPoll(0)
    reactor.doPoll(None)
    assert one.calls == ["read", "read"]


def test_what_can_be_written_is_written(reactor: Any, make: Make) -> None:
    one = make(reads=False)
    reactor.addWriter(one)
    reactor.doPoll(0)
    assert one.calls == ["write"]
    reactor.removeWriter(one)
    reactor.doPoll(0)
    assert one.calls == ["write"]


def test_both_at_once_are_both_done(reactor: Any, make: Make) -> None:
    one = make()
    reactor.addWriter(one)
    one.peer.send(b"x")
    reactor.doPoll(0)
    assert one.calls == ["read", "write"]


def test_it_waits_no_longer_than_it_is_told(reactor: Any, make: Make) -> None:
    make()
    before = reactor.seconds()
    reactor.doPoll(0.02)
    assert 0.01 < reactor.seconds() - before < 10


@pytest.mark.parametrize("reads", [True, False])
def test_a_hang_up_ends_it_once_everything_is_read(reactor: Any, make: Make, reads: bool) -> None:
    one = make(reads=reads)
    if not reads:
        reactor.addWriter(one)
    one.peer.send(b"x")
    one.peer.close()
    reactor.doPoll(0)
    if reads:
        # There is something to read, be it the end: reading tells.
        assert (one.calls, one.lost) == (["read"], [])
    else:
        assert (one.calls, [type(lost) for lost in one.lost]) == ([], [ConnectionLost])
        assert reactor.getWriters() == []


@pytest.mark.parametrize("act", ["read", "write"])
@pytest.mark.parametrize("why", [CONNECTION_DONE, CONNECTION_LOST, OSError("odd")])
def test_what_it_says_is_why_ends_it(reactor: Any, make: Make, act: str, why: Exception) -> None:
    one = make(reads=act == "read")
    if act == "write":
        reactor.addWriter(one)
    one.acts = lambda: why
    one.peer.send(b"x")
    reactor.doPoll(0)
    reactor.doPoll(0)
    assert (one.calls, [type(lost) for lost in one.lost]) == ([act], [type(why)])


@pytest.mark.parametrize("why", [None, 0, False])
def test_what_is_no_reason_ends_nothing(reactor: Any, make: Make, why: Any) -> None:
    one = make()
    one.acts = lambda: why
    one.peer.send(b"x")
    reactor.doPoll(0)
    assert (one.calls, one.lost) == (["read"], [])


def test_the_end_of_reading_alone_is_told_to_who_understands_it(reactor: Any, make: Make) -> None:
    one = make(HalfCloseable)
    directlyProvides(one, IHalfCloseableDescriptor)
    one.peer.send(b"x")
    one.acts = lambda: CONNECTION_DONE
    reactor.doPoll(0)
    assert (one.calls, one.lost) == (["read", "read lost"], [])


@pytest.mark.parametrize("act", ["read", "write"])
@pytest.mark.parametrize("error", [ValueError("a mistake"), SystemExit(3)])
def test_an_error_is_logged_and_ends_its_connection_only(
    reactor: Any, make: Make, act: str, error: BaseException, flush_logged_errors: Callable[..., Any]
) -> None:
    def fail() -> None:
        raise error

    one, other = make(reads=act == "read"), make()
    if act == "write":
        reactor.addWriter(one)
    one.acts = fail
    one.peer.send(b"x")
    other.peer.send(b"x")
    reactor.doPoll(0)
    assert flush_logged_errors(type(error)) == [error]
    assert (one.calls, one.lost) == ([act], [error])
    assert (other.calls, other.lost) == (["read"], [])
    assert one not in reactor.getReaders() + reactor.getWriters()


def test_an_error_at_the_end_of_one_keeps_no_other_waiting_for_ever(lean: LeanReactor) -> None:
    def fail(reason: Failure) -> None:
        raise ValueError("a mistake")

    ones = [Selectable(lean), Selectable(lean)]
    for one in ones:
        one.acts = lambda: CONNECTION_DONE
        one.connectionLost = fail  # type: ignore[method-assign]
        lean.addReader(one)
        one.peer.send(b"x")
    for _ in ones:
        # The reactor's main loop logs it, and polls again.
        with suppress(ValueError):
            lean.doPoll(0)
    assert [one.calls for one in ones] == [["read"], ["read"]]
    for one in ones:
        one.close()


@pytest.mark.parametrize("closes", ["read", "write"])
def test_who_is_removed_by_an_earlier_event_is_not_called(reactor: Any, make: Make, closes: str) -> None:
    ones = [make(reads=closes == "read") for _ in range(2)]
    for one, other in (ones, reversed(ones)):
        if closes == "write":
            reactor.addWriter(one)
        one.acts = other.close
        one.peer.send(b"x")
    reactor.doPoll(0)
    assert sorted(len(one.calls) for one in ones) == [0, 1]


@pytest.mark.parametrize("event", ["read", "write", "hang-up"])
def test_who_has_taken_over_the_number_of_one_that_is_gone_is_not_called(
    lean: LeanReactor, event: str
) -> None:
    ones = [Selectable(lean), Selectable(lean)]
    heirs: list[Selectable] = []

    def replace(gone: Selectable) -> None:
        heir = Selectable(lean)
        number = gone.fileno()
        lean.removeReader(gone)
        lean.removeWriter(gone)
        gone.socket.detach()
        gone.peer.close()
        os.dup2(heir.socket.fileno(), number)
        heir.socket.close()
        heir.socket = socket.socket(fileno=number)
        heir.acts = lambda: CONNECTION_DONE
        lean.addReader(heir)
        lean.addWriter(heir)
        heirs.append(heir)
        for one in ones:
            one.acts = lambda: None

    for one, other in (ones, ones[::-1]):
        one.acts = lambda other=other: replace(other)  # type: ignore[misc]
        lean.addReader(one)
        one.peer.send(b"x")
    if event == "write":
        for one in ones:
            lean.removeReader(one)
            lean.addWriter(one)
    elif event == "hang-up":
        # The second of the two is in the batch with nothing but a hang-up.
        lean.removeReader(ones[1])
        lean.addWriter(ones[1])
        ones[1].peer.close()
        ones[1].acts = lambda: None
    lean.doPoll(0)
    (heir,) = heirs
    assert (heir.calls, heir.lost) == ([], [])
    # Nothing is forgotten by that: what it can do it is told the next time.
    lean.doPoll(0)
    assert heir.calls == ["write"]
    heir.close()
    for one in ones:
        one.peer.close()
        if one.socket.fileno() >= 0:
            one.close()


def run(*command: str) -> str:
    done = subprocess.run([sys.executable, *command], cwd=ROOT, capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_installing_makes_it_the_global_one() -> None:
    code = (
        "from comfyproxy.proxy.reactor import LeanReactor, install; install();"
        " from twisted.internet import reactor; print(type(reactor) is LeanReactor);"
        " reactor.callLater(0, reactor.stop); reactor.run()"
    )
    assert run("-c", code) == "True\n"


def test_twistd_knows_it() -> None:
    code = "import sys; from twisted.scripts.twistd import run; sys.argv[0] = 'twistd'; run()"
    lines = run("-c", code, "--help-reactors").splitlines()
    assert [line.split()[0] for line in lines if "comfyproxy" in line] == ["comfyproxy"]


def test_elsewhere_the_default_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    installed: list[str] = []
    monkeypatch.setattr(module.sys, "platform", "darwin")
    monkeypatch.setattr(default, "install", lambda: installed.append("default"))
    module.install()
    assert installed == ["default"]
