"""What every test gets: bounded hypothesis profiles, and three checks that pytest alone does not make.

pytest-twisted runs every test inside the running reactor. There an error in a Deferred that nobody looks at
is only printed, a timer or a socket that a test leaves behind is met by the next test, and a test that waits
for a Deferred which never fires waits for ever: pytest-timeout's signal is swallowed by the reactor's main
loop. The fixtures `no_unhandled_errors` and `clean_reactor` and the hook `pytest_pyfunc_call` make all three
fail the test that did it. `tests/test_house.py` proves each of them.
"""

import gc
import os
from collections.abc import Callable, Iterator
from inspect import iscoroutine
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import pytest_twisted
from coverage import Coverage
from twisted.internet import defer, task
from twisted.logger import LogEvent, STDLibLogObserver, globalLogBeginner, globalLogPublisher
from twisted.python.failure import Failure

hypothesis.settings.register_profile(
    "fast", max_examples=50, deadline=None, print_blob=True, derandomize=bool(os.environ.get("CI"))
)
hypothesis.settings.register_profile("deep", max_examples=5_000, deadline=None, print_blob=True)
hypothesis.settings.load_profile("fast")

# Turns of the reactor that what a test has closed may take to be gone: a connection that was told to close
# needs some to say goodbye. They do not wait, so that no timer of a test can hide in them.
CLOSING_TURNS = 12

# An asynchronous test is cancelled where it waits after this share of its timeout. The rest is for reporting
# it: at the whole of it pytest-timeout ends the process, the last resort, say for a fixture that hangs.
CANCEL_AT = 0.5


class ErrorLog:
    """The failures that Twisted logged during one test: what trial's flushLoggedErrors would see."""

    def __init__(self) -> None:
        self._events: list[LogEvent] = []

    def __call__(self, event: LogEvent) -> None:
        # The second is the key of `twisted.python.log`, which the reactors log errors of protocols by.
        if "log_failure" in event or "failure" in event:
            self._events.append(event)

    def flush(self, *errors: type[BaseException]) -> list[BaseException]:
        """Take out and return what was logged: of these types, or everything when none is given."""
        gc.collect()
        taken, kept = [], []
        for event in self._events:
            (taken if not errors or isinstance(_error(event), errors) else kept).append(event)
        self._events = kept
        return [_error(event) for event in taken]

    def report(self) -> str:
        """What is left, one paragraph an error, traceback included."""
        return "\n".join(_describe(event) for event in self._events)


def _error(event: LogEvent) -> BaseException:
    return _failure(event).value


def _failure(event: LogEvent) -> Failure:
    failure: Failure = event.get("log_failure") or event["failure"]
    return failure


def _describe(event: LogEvent) -> str:
    return f"{event.get('log_format') or ''}\n{_failure(event).getTraceback()}"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--covered-by",
        type=Path,
        metavar="DIR",
        help="let --cov measure only while tests of this directory run: the others do not wait for it",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Send Twisted's log to the standard library's: pytest shows it for a failed test, and `caplog` reads it.

    Until somebody begins logging, Twisted keeps every event for whoever does, with its failure and all its
    frames.
    """
    globalLogBeginner.beginLoggingTo([STDLibLogObserver()], redirectStandardIO=False, discardBuffer=True)
    if directory := config.getoption("covered_by"):
        config.pluginmanager.register(CoveredBy(config.rootpath / directory))


class CoveredBy:
    """Lets coverage be measured while all tests are imported, and while those of one directory run.

    They run first: what is remembered from one call to the next would be known from the others' tests.
    """

    def __init__(self, directory: Path) -> None:
        measured = Coverage.current()
        assert measured is not None, "--covered-by says what --cov measures"
        self._coverage = measured
        self._directory = directory
        self._goes_on = True

    def _counts(self, item: pytest.Item) -> bool:
        return item.path.is_relative_to(self._directory)

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Put those that count in front."""
        items.sort(key=self._counts, reverse=True)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> None:
        """Measure no more from the first that does not; pytest goes on to run it."""
        if self._goes_on and not self._counts(item):
            self._coverage.stop()
            self._goes_on = False


def pytest_collection_finish() -> None:
    """Set aside what was imported, so that collecting garbage after a test looks only at what that test made.

    Otherwise each collection visits every object of every imported module: some 50 ms, a minute per thousand
    tests.
    """
    gc.collect()
    gc.freeze()


def pytest_sessionfinish() -> None:
    """Put back what was set aside, for the checks that pytest itself makes at the end."""
    gc.unfreeze()


@pytest.fixture(autouse=True)
def no_unhandled_errors(request: pytest.FixtureRequest) -> Iterator[ErrorLog]:
    """Fail a test during which Twisted logged an error, such as a failed Deferred without an errback.

    A Deferred reports its unhandled error when it is collected, and a failure is often part of a cycle
    through its traceback: hence the collection here.
    """
    log = ErrorLog()
    globalLogPublisher.addObserver(log)
    yield log
    # What is alive when the garbage is frozen stays for ever, and these would be: megabytes in some tests.
    request.node.funcargs.clear()
    gc.collect()
    globalLogPublisher.removeObserver(log)
    left = log.report()
    gc.freeze()
    if left:
        pytest.fail(f"errors were logged and not flushed:\n{left}", pytrace=False)


@pytest.fixture
def flush_logged_errors(no_unhandled_errors: ErrorLog) -> Callable[..., list[BaseException]]:
    """For a test that expects errors: `flush_logged_errors(SomeError)` returns them and forgets them."""
    return no_unhandled_errors.flush


@pytest.fixture(scope="session")
def running_reactor() -> Any:
    """The reactor, started: from here on its own wakers are among its readers.

    It is imported here and not above, where the import would install one before `--reactor` is read.
    """
    from twisted.internet import reactor

    pytest_twisted.blockon(task.deferLater(reactor, 0))
    return reactor


def _selectables(reactor: Any) -> set[object]:
    return {*reactor.getReaders(), *reactor.getWriters()}


@pytest.fixture(autouse=True)
def clean_reactor(running_reactor: Any, no_unhandled_errors: ErrorLog) -> Iterator[None]:
    """Fail a test that leaves a timer, a connection or a listening port in the reactor; remove what it left.

    What was there before the test, such as the server of a module's fixture, may stay.
    """
    timers = set(running_reactor.getDelayedCalls())
    selectables = _selectables(running_reactor)

    def leftovers() -> tuple[set[Any], set[Any]]:
        return (
            set(running_reactor.getDelayedCalls()) - timers,
            _selectables(running_reactor) - selectables,
        )

    yield
    for _ in range(CLOSING_TURNS):
        # At least one turn: until the next call the reactor keeps the last one, the test with its arguments.
        pytest_twisted.blockon(task.deferLater(running_reactor, 0))
        if not any(leftovers()):
            return
    new_timers, new_selectables = leftovers()
    left = "\n".join(str(one) for one in [*new_timers, *new_selectables])
    for call in new_timers:
        call.cancel()
    for selectable in new_selectables:
        running_reactor.removeReader(selectable)
        running_reactor.removeWriter(selectable)
        selectable.connectionLost(Failure(ConnectionAbortedError("left behind by a test")))
    if left:
        pytest.fail(f"left behind in the reactor:\n{left}", pytrace=False)


def _timeout(test: pytest.Function) -> float:
    """The seconds that pytest-timeout gives this test; 0 for no bound."""
    marker = test.get_closest_marker("timeout")
    if marker:
        return float(marker.args[0] if marker.args else marker.kwargs["timeout"])
    given = test.config.getoption("timeout")
    return float(test.config.getini("timeout") if given is None else given)


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> None:
    """Make an asynchronous test's timeout a cancellation, so that the traceback shows where it waited."""
    test, seconds = pyfuncitem.obj, _timeout(pyfuncitem) * CANCEL_AT
    if not hasattr(test, "_pytest_twisted_mark") or not seconds:
        return
    reactor = pyfuncitem.funcargs["running_reactor"]

    async def bounded(**arguments: Any) -> None:
        started = test(**arguments)
        waiting = defer.ensureDeferred(started) if iscoroutine(started) else started
        timer = reactor.callLater(seconds, waiting.cancel)
        try:
            await waiting
        except defer.CancelledError as cancelled:
            if timer.active():
                raise
            raise TimeoutError(f"still waiting after {seconds:g} s") from cancelled
        finally:
            if timer.active():
                timer.cancel()

    pyfuncitem.obj = pytest_twisted.ensureDeferred(bounded)
