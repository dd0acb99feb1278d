"""The two fixtures and the hook of conftest.py, proved on a small test file that does what they forbid."""

import shutil
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

TESTS = Path(__file__).parent

MISBEHAVING = """
import pytest
import pytest_twisted
from twisted.internet import defer, protocol, reactor
from twisted.logger import Logger


@pytest.fixture(scope="module")
def shared_port():
    factory = protocol.Factory.forProtocol(protocol.Protocol)
    port = reactor.listenTCP(0, factory, interface="127.0.0.1")
    yield port
    port.stopListening()


def test_clean():
    pass


@pytest_twisted.ensureDeferred
async def test_clean_after_waiting():
    done = defer.Deferred()
    reactor.callLater(0, done.callback, None)
    await done


def test_cleans_up():
    reactor.callLater(1000, print).cancel()
    return reactor.listenTCP(0, protocol.Factory(), interface="127.0.0.1").stopListening()


@pytest_twisted.ensureDeferred
async def test_closes_both_ends_without_waiting():
    accepted = defer.Deferred()

    class Server(protocol.Protocol):
        def connectionMade(self):
            accepted.callback(self.transport)

    port = reactor.listenTCP(0, protocol.Factory.forProtocol(Server), interface="127.0.0.1")
    factory = protocol.ClientFactory.forProtocol(protocol.Protocol)
    reactor.connectTCP("127.0.0.1", port.getHost().port, factory)
    transport = await accepted
    transport.loseConnection()
    port.stopListening()


def test_uses_what_the_module_shares(shared_port):
    pass


def test_leaks_a_deferred_error():
    defer.fail(ZeroDivisionError("leaked"))


def test_leaks_a_deferred_error_in_a_cycle():
    failed = defer.Deferred()
    failed.itself = failed
    try:
        raise ZeroDivisionError("leaked")
    except ZeroDivisionError:
        failed.errback()


def test_logs_a_failure():
    try:
        raise ZeroDivisionError("logged")
    except ZeroDivisionError:
        Logger().failure("could not divide")


@pytest_twisted.ensureDeferred
async def test_fails_in_a_protocol(shared_port):
    gone = defer.Deferred()

    class Client(protocol.Protocol):
        def connectionMade(self):
            self.transport.write(b"x")
            reactor.callLater(0, self.transport.loseConnection)

        def connectionLost(self, reason):
            gone.callback(None)
            raise ZeroDivisionError("in a protocol")

    factory = protocol.ClientFactory.forProtocol(Client)
    factory.noisy = False
    reactor.connectTCP("127.0.0.1", shared_port.getHost().port, factory)
    await gone


def test_flushes_a_failure(flush_logged_errors):
    defer.fail(ZeroDivisionError("expected"))
    assert [str(error) for error in flush_logged_errors(ZeroDivisionError)] == ["expected"]


def test_flushes_another_failure(flush_logged_errors):
    defer.fail(ZeroDivisionError("not expected"))
    assert flush_logged_errors(KeyError) == []


def test_leaves_a_timer():
    reactor.callLater(1000, print)


def test_leaves_a_port():
    reactor.listenTCP(0, protocol.Factory(), interface="127.0.0.1")


@pytest_twisted.ensureDeferred
async def test_leaves_a_connection(shared_port):
    connected = defer.Deferred()

    class Client(protocol.Protocol):
        def connectionMade(self):
            connected.callback(None)

    factory = protocol.ClientFactory.forProtocol(Client)
    factory.noisy = False
    reactor.connectTCP("127.0.0.1", shared_port.getHost().port, factory)
    await connected


@pytest.mark.timeout(3)
@pytest_twisted.ensureDeferred
async def test_waits_for_ever():
    await defer.Deferred()


def test_nothing_of_all_that_is_left():
    assert not reactor.getDelayedCalls()
"""


@pytest.fixture(scope="module", params=["default", "asyncio"])
def outcomes(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What became of each misbehaving test: "passed", or the text of its failures and errors."""
    folder = tmp_path_factory.mktemp("misbehaving")
    shutil.copy(TESTS / "conftest.py", folder)
    shutil.copy(TESTS.parent / "pyproject.toml", folder)
    (folder / "test_misbehaving.py").write_text(MISBEHAVING)
    options = ["-p", "no:cacheprovider", "--junitxml=outcomes.xml", f"--reactor={request.param}"]
    command = [sys.executable, "-m", "pytest", *options, folder]
    run = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=50)
    assert run.returncode == pytest.ExitCode.TESTS_FAILED, run.stdout + run.stderr
    found: dict[str, str] = {}
    for case in ElementTree.parse(folder / "outcomes.xml").iter("testcase"):
        problems = [*case.iter("failure"), *case.iter("error")]
        name = case.attrib["name"].removeprefix("test_").replace("_", " ")
        found[name] = "\n".join(f"{one.get('message')}\n{one.text}" for one in problems) or "passed"
    return found


@pytest.mark.parametrize(
    "test",
    [
        "clean",
        "clean after waiting",
        "cleans up",
        "closes both ends without waiting",
        "uses what the module shares",
        "flushes a failure",
        "nothing of all that is left",
    ],
)
def test_a_test_that_cleans_up_passes(outcomes: dict[str, str], test: str) -> None:
    assert outcomes[test] == "passed"


@pytest.mark.parametrize(
    ("test", "reason"),
    [
        ("leaks a deferred error", "ZeroDivisionError: leaked"),
        ("leaks a deferred error in a cycle", "ZeroDivisionError: leaked"),
        ("logs a failure", "could not divide"),
        ("fails in a protocol", "ZeroDivisionError: in a protocol"),
        ("flushes another failure", "ZeroDivisionError: not expected"),
        ("leaves a timer", "left behind in the reactor:\n<DelayedCall"),
        ("leaves a port", "left behind in the reactor:\n<"),
        ("leaves a connection", "left behind in the reactor:\n<"),
        ("waits for ever", "await defer.Deferred()"),
        ("waits for ever", "TimeoutError: still waiting after 1.5 s"),
    ],
)
def test_a_test_that_leaves_something_fails_and_says_what(
    outcomes: dict[str, str], test: str, reason: str
) -> None:
    assert reason in outcomes[test]
