"""A plugin of pytest's that puts accelerators under the suite of proxy rules: ``--accelerators``.

``eager`` gives all connections eager writes. ``spliced`` has every body of known length spliced besides, by a
kernel in memory, so that a test still says when each octet arrives.
"""

from collections.abc import Iterator
from functools import partial

import pytest

from comfyproxy.proxy import splice, transports, uploads, upstream
from comfyproxy.testing import rig
from tests.accelerators.loopback_network import LoopbackNetwork
from tests.accelerators.memory_kernel import EagerMemoryConnection, Kernel, SplicingNetwork


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--accelerators", choices=["eager", "spliced", "loopback"], required=True)


@pytest.fixture(autouse=True)
def accelerators(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Accelerate the rigs of a test; at its end no descriptor may be open."""
    kernel = Kernel()
    monkeypatch.setattr(splice, "_spare", [])
    networks: list[LoopbackNetwork] = []
    if request.config.getoption("accelerators") == "loopback":

        def network(connection: object) -> LoopbackNetwork:
            networks.append(LoopbackNetwork())
            return networks[-1]

        monkeypatch.setattr(rig, "MemoryNetwork", network)
        for module in (splice, upstream, uploads):
            monkeypatch.setattr(module, "WORTHWHILE", 1)
    elif request.config.getoption("accelerators") == "eager":
        eager = rig.MemoryNetwork
        monkeypatch.setattr(rig, "MemoryNetwork", lambda connection: eager(connection=EagerMemoryConnection))
    else:
        monkeypatch.setattr(rig, "MemoryNetwork", partial(SplicingNetwork, kernel))
        monkeypatch.setattr(splice, "os", kernel)
        monkeypatch.setattr(transports, "fcntl", kernel)
        for module in (splice, upstream, uploads):
            monkeypatch.setattr(module, "WORTHWHILE", 1)
    yield
    while splice._spare:
        splice._close(splice._spare.pop())
    assert kernel.descriptors == {}
    for network in networks:
        network.close()
