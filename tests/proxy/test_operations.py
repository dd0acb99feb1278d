"""Operations, carried out: their steps one after the other and at once, and how they end."""

import pytest

from comfyproxy.core.balancing.operations import Ask, AskAddress, Latch, Wait
from comfyproxy.proxy.operations import FAILED, Running
from comfyproxy.testing import ScriptedBackend, Step
from comfyproxy.testing.rig import OK


class Carried:
    """A rig that carries operations out, and what they returned."""

    def __init__(self, rig):
        self.rig = rig
        self.results = []
        self.came = []

    def run(self, *steps, result="done"):
        """Begin an operation of these steps."""

        def operation():
            try:
                for step in steps:
                    self.came.append((yield step))
            except GeneratorExit:
                self.came.append("closed")
                raise
            return result

        return self.begin(operation())

    def begin(self, operation):
        running = Running(
            self.rig.proxy, self.rig.balancer, operation, self.results.append, client=b"192.0.2.7"
        )
        running.start()
        self.rig.network.run()
        return running

    def ask(self, number=0, **options):
        return Ask(self.rig.pool.backends[number], b"GET", b"/", **options)


@pytest.fixture
def carried(make_rig):
    return lambda *backends, **settings: Carried(make_rig(*backends, **settings))


def test_an_operation_without_steps_is_over_at_once(carried):
    one = carried()
    one.run()
    assert one.results == ["done"]


def test_each_step_is_told_what_came_of_it(carried):
    one = carried(ScriptedBackend([Step(send=OK)]), None)
    one.run(one.ask(0), AskAddress(), one.ask(1))
    first, address, second = one.came
    assert (first.status, address, second.status) == (200, b"192.0.2.7", 0)
    assert first.backend is one.rig.pool.backends[0]
    assert one.results == ["done"]


def test_steps_in_a_tuple_are_taken_at_once(carried):
    one = carried(*[ScriptedBackend() for _ in range(3)])
    one.run((one.ask(0), (one.ask(1), AskAddress(), ()), one.ask(2)))
    connections = [backend.connections[0] for backend in one.rig.backends]
    for connection in reversed(connections):
        assert one.came == []
        connection.send(OK)
        one.rig.network.run()
    ((first, (second, address, nothing), third),) = one.came
    assert [reply.backend.index for reply in (first, second, third)] == [0, 1, 2]
    assert (address, nothing) == (b"192.0.2.7", ())
    assert one.results == ["done"]


def test_thousands_of_steps_that_need_no_waiting_take_no_stack(carried):
    one = carried()
    one.run(*[AskAddress(), (), (AskAddress(),)] * 3000)
    assert len(one.came) == 9000
    assert one.results == ["done"]


def test_an_operation_that_is_stopped_is_closed_with_all_its_steps(carried):
    one = carried(ScriptedBackend(), ScriptedBackend())
    running = one.run((one.ask(0), one.ask(1)))
    running.stop()
    running.stop()
    one.rig.network.run()
    assert one.came == ["closed"]
    assert one.results == []
    assert [backend.open_connections for backend in one.rig.backends] == [[], []]
    assert one.rig.proxy.operations == set()


def test_an_operation_that_raises_has_failed(carried, flush_logged_errors):
    def failing():
        yield AskAddress()
        raise ZeroDivisionError

    one = carried()
    one.begin(failing())
    assert one.results == [FAILED]
    assert len(flush_logged_errors(ZeroDivisionError)) == 1


def test_a_step_that_is_none_is_a_failure_and_the_operation_is_closed(carried, flush_logged_errors):
    one = carried()
    one.run("nonsense")
    assert one.results == [FAILED]
    assert one.came == ["closed"]
    assert flush_logged_errors()


def test_an_operation_that_fails_as_it_is_closed_is_logged(carried, flush_logged_errors):
    def stubborn():
        try:
            yield one.ask()
        finally:
            raise ZeroDivisionError

    one = carried(ScriptedBackend())
    one.begin(stubborn()).stop()
    assert one.results == []
    assert len(flush_logged_errors(ZeroDivisionError)) == 1


def test_an_operation_may_be_stopped_by_what_it_does(carried):
    def suicidal():
        yield AskAddress()
        holder[0].stop()
        try:
            yield one.ask()
        except GeneratorExit:
            one.came.append("closed")
            raise

    one = carried(ScriptedBackend())
    operation = suicidal()
    holder = [Running(one.rig.proxy, one.rig.balancer, operation, one.results.append)]
    holder[0].start()
    one.rig.network.run()
    assert one.came == ["closed"]
    assert one.results == []
    assert one.rig.backend.open_connections == []


def test_operations_run_side_by_side(carried):
    one = carried(ScriptedBackend(), ScriptedBackend())
    one.run(one.ask(0), result="first")
    one.run(one.ask(1), result="second")
    for backend in reversed(one.rig.backends):
        backend.connections[0].send(OK)
        one.rig.network.run()
    assert one.results == ["second", "first"]


def test_operations_wait_for_what_another_does(carried):
    one, latch = carried(), Latch()
    one.run(Wait(latch), result="first")
    stopped = one.run(Wait(latch), result="stopped")
    one.run((Wait(latch), AskAddress()), result="second")
    assert one.results == []
    stopped.stop()
    latch.open()
    assert one.results == ["first", "second"]
    one.run(Wait(latch), result="late")
    assert one.results == ["first", "second", "late"]
