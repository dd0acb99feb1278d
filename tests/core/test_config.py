"""The values that a configuration is made of."""

import dataclasses

import pytest

from comfyproxy.core.config import BALANCED_PREFIXES, Config, Limits, PoolConfig, RouteConfig, Timeouts
from comfyproxy.core.configuration.addresses import Address

POOL = PoolConfig("default", (Address("http", "a", 80),))


def test_a_pool_and_a_route_make_a_configuration() -> None:
    config = Config(pools={"default": POOL}, routes=(RouteConfig("/", pool="default"),))
    assert config.listen == ("tcp:8080:interface=127.0.0.1",)
    assert (config.access_log, config.access_log_file, config.websocket) == ("routing", "-", "auto")
    assert not config.tcp
    assert config.timeouts == Timeouts(5, 30, 60, 1800, 600, 75, 55)
    assert config.limits == Limits(head=65_536, line=16_384, fields=200, body=0, max_servers=100_000)
    assert config.routes[0].timeouts == config.timeouts


@pytest.mark.parametrize("value", [POOL, RouteConfig("/"), Timeouts(), Limits(), Config(pools={}, routes=())])
def test_values_do_not_change(value: object) -> None:
    name = dataclasses.fields(value)[0].name  # type: ignore[arg-type]
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(value, name, None)


def test_configurations_of_the_same_values_are_equal() -> None:
    assert Config(pools={"a": POOL}, routes=()) == Config(pools={"a": POOL}, routes=())
    assert Config(pools={"a": POOL}, routes=()) != Config(pools={"b": POOL}, routes=())


def test_the_routes_of_the_guide_are_balanced() -> None:
    assert set(BALANCED_PREFIXES) == {
        "/internal",
        "/api",
        "/ws",
        "/workflow_templates",
        "/extensions",
        "/docs",
        "/templates",
    }
