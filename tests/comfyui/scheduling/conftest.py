"""Work of known kinds, and servers."""

from collections.abc import Callable

import pytest

from comfyproxy.comfyui.scheduling.durations import Durations, Run
from comfyproxy.comfyui.workflow import Workflow
from comfyproxy.core.balancing.backend import Backend
from comfyproxy.core.configuration.addresses import parse_addresses

Work = Callable[..., Workflow]


def work(kind: str = "portrait", *models: str, classes: tuple[str, ...] = ("KSampler",)) -> Workflow:
    """Work of that kind, which needs these models."""
    return Workflow(frozenset(classes), frozenset(models), kind)


def known(**seconds: float) -> Durations:
    """What is learned from a pool in which prompts of these kinds, without models, took so long."""
    durations = Durations()
    for kind, took in seconds.items():
        durations.learn(Run(work(kind), "a", took))
    return durations


@pytest.fixture(name="work", scope="session")
def _work() -> Work:
    return work


@pytest.fixture(name="known", scope="session")
def _known() -> Callable[..., Durations]:
    return known


@pytest.fixture
def servers() -> list[Backend]:
    """Three servers."""
    return [Backend(address, index) for index, address in enumerate(parse_addresses("http://gpu[1-3]:8188"))]
