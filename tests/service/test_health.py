"""Which checks a configuration means, and that they follow it."""

from collections.abc import Iterator

import pytest

from comfyproxy.comfyui.probe import ComfyUIProbe
from comfyproxy.core.balancing.balancer import Balancer
from comfyproxy.core.balancing.pool import Pool
from comfyproxy.core.balancing.probing import HttpProbe
from comfyproxy.core.config import HealthConfig
from comfyproxy.core.configuration.addresses import parse_addresses
from comfyproxy.errors import UnknownServer
from comfyproxy.proxy.probes import ProbePlan
from comfyproxy.service.health import HealthChecks, find_servers, plan_of, rules_of
from comfyproxy.testing import MemoryNetwork, ScriptedBackend, Step

QUEUE = b'HTTP/1.1 200 OK\r\nContent-Length: 38\r\n\r\n{"exec_info": {"queue_remaining":  0}}'


@pytest.mark.parametrize(
    ("probe", "plan"),
    [
        ("none", None),
        ("tcp", ProbePlan(None, 9.0, 3.0)),
        ("http:/health?a:b", ProbePlan(HttpProbe("/health?a:b", ((204, 204),)), 9.0, 3.0)),
    ],
)
def test_plan_is_what_the_options_say(probe: str, plan: ProbePlan | None) -> None:
    assert plan_of(HealthConfig(probe=probe, status=((204, 204),), interval=9.0, timeout=3.0)) == plan


def test_comfyui_is_asked_for_its_queue_with_patience() -> None:
    plan = plan_of(HealthConfig(probe="comfyui"))
    assert plan is not None
    assert (type(plan.probe), plan.is_patient) == (ComfyUIProbe, True)


def test_rules_are_what_the_options_say() -> None:
    rules = rules_of(
        HealthConfig("tcp", rise=4, fall=5, eject_failures=6, eject_time=7, eject_share=0.8, slow_start=9)
    )
    assert (rules.probed, rules.rise, rules.fall, rules.panic, rules.slow_start) == (True, 4, 5, 0.1, 9)
    ejection = rules.ejection
    assert (ejection.failures, ejection.seconds, ejection.longest, ejection.share) == (6, 7, 300, 0.8)
    assert not rules_of(HealthConfig("none")).probed


class Checked:
    def __init__(self) -> None:
        self.network = MemoryNetwork()
        self.server = ScriptedBackend([Step(send=QUEUE)])
        self.network.listenTCP(8188, self.server, interface="10.0.0.1")
        self.balancers = [
            Balancer(Pool(name, parse_addresses("http://10.0.0.1:8188")), clock=self.network.seconds)
            for name in ("a", "b")
        ]
        self.checks = HealthChecks(self.network, lambda backend: None)

    def rounds(self, seconds: float = 20) -> int:
        self.server.requests.clear()
        for _ in range(round(seconds * 4)):
            self.network.advance(0.25)
        return len(self.server.requests)


@pytest.fixture
def checked() -> Iterator[Checked]:
    one = Checked()
    yield one
    one.checks.stop()
    one.network.run()
    assert one.network.getDelayedCalls() == []


def test_every_pool_is_checked_and_one_that_is_gone_no_more(checked: Checked) -> None:
    config = HealthConfig(interval=4.0)
    checked.checks.follow([(balancer, config) for balancer in checked.balancers])
    assert checked.rounds() in (9, 10, 11, 12)
    checked.checks.follow([(checked.balancers[0], config)])
    assert checked.rounds() in (4, 5, 6)
    checked.checks.stop()
    assert checked.rounds() == 0


def test_pool_that_stays_keeps_its_rhythm_over_reloads(checked: Checked) -> None:
    config = HealthConfig(interval=60.0)
    for _ in range(10):
        checked.checks.follow([(checked.balancers[0], config)])
        checked.network.advance(1)
    assert len(checked.server.requests) == 1


POOLS = [
    Pool("a", parse_addresses("http://gpu[1-3]:8188, http://big:8188 name=big")),
    Pool("b", parse_addresses("http://gpu2:8188")),
]


@pytest.mark.parametrize(
    ("server", "meant"),
    [
        ("http://gpu1:8188", ["a http://gpu1:8188"]),
        ("HTTP://GPU1:8188/", ["a http://gpu1:8188"]),
        ("http://gpu2:8188", ["a http://gpu2:8188", "b http://gpu2:8188"]),
        ("http://gpu[1,3]:8188", []),
        ("http://gpu[2-3]:8188", ["a http://gpu2:8188", "b http://gpu2:8188", "a http://gpu3:8188"]),
        ("big", ["a http://big:8188"]),
        ("gpu1", []),
        ("http://gpu1", []),
        ("http://gpu[3-4]:8188", []),
    ],
)
def test_servers_are_found_by_url_and_by_name(server: str, meant: list[str]) -> None:
    if meant:
        found = [f"{pool.name} {backend.url}" for pool, backend in find_servers(POOLS, server)]
        assert found == meant
        return
    with pytest.raises(UnknownServer, match="No pool has a server"):
        find_servers(POOLS, server)
