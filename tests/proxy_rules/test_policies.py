"""Every policy in a whole proxy: failures, limits and backups are the same for all of them."""

import pytest

from comfyproxy.core.balancing.selection.balance import PLAIN_POLICIES, parse_balance
from comfyproxy.core.configuration.addresses import Address
from comfyproxy.testing import ScriptedBackend, Step
from comfyproxy.testing.rig import OK

GET = b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n"


def always():
    return ScriptedBackend([Step(send=OK)] * 40)


def asked(rig):
    """How many requests each server has got."""
    return [len(backend.requests) if backend is not None else 0 for backend in rig.backends]


@pytest.fixture(params=[*PLAIN_POLICIES, "hash:uri"])
def rig_of(request, make_rig):
    """Makes a rig that balances by each policy in turn."""

    def make(*backends, **settings):
        rig = make_rig(*backends, **settings)
        rig.balancer.balance_by(parse_balance(request.param))
        return rig

    return make


def addresses(count, **more):
    return [Address("http", f"10.0.0.{number}", 8188, **more) for number in range(1, count + 1)]


def test_a_server_that_refuses_costs_no_request(rig_of):
    rig = rig_of(None, always(), None, always())
    for _ in range(12):
        assert rig.answer(rig.ask(GET)).status == 200
    assert sum(asked(rig)) == 12
    assert rig.leases == 0


def test_no_server_gets_more_than_it_may_have(rig_of):
    rig = rig_of(*(ScriptedBackend([Step()]) for _ in range(3)), addresses=addresses(3, max_conns=1))
    clients = [rig.ask(GET) for _ in range(4)]
    assert asked(rig) == [1, 1, 1]
    assert len(rig.balancer.waiting) == 1
    for client in clients:
        client.close()
    rig.network.run()
    assert rig.leases == 0


def test_a_backup_is_asked_when_the_others_refuse(rig_of):
    pool = [*addresses(2), Address("http", "10.0.0.3", 8188, backup=True)]
    rig = rig_of(None, None, always(), addresses=pool)
    assert rig.answer(rig.ask(GET)).status == 200
    rig = rig_of(always(), always(), always(), addresses=pool)
    for _ in range(6):
        rig.ask(GET)
    assert asked(rig)[2] == 0
