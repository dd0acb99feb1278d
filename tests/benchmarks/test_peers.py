"""How the peers are found and configured."""

from pathlib import Path

import pytest

from benchmarks.backends import address
from benchmarks.client import KINDS
from benchmarks.peers import PEERS, Place, Setting
from benchmarks.report import TARGETS
from benchmarks.works import WORKS


@pytest.mark.parametrize("name", list(PEERS))
@pytest.mark.parametrize(
    "setting", [Setting(["127.0.0.1:1"]), Setting(["127.0.0.1:1"], log=True, large=True)]
)
def test_every_peer_has_a_command_for_every_setting(name: str, setting: Setting, tmp_path: Path) -> None:
    command = PEERS[name].command("/some/program", setting, Place(12345, tmp_path))
    said = [*map(str, command), *(path.read_text() for path in tmp_path.iterdir())]
    assert any("12345" in one for one in said)
    assert any("127.0.0.1:1" in one or "port_value: 1}" in one for one in said)
    assert not any("@{" in one for one in said)


def test_a_peer_takes_part_in_works_that_there_are() -> None:
    works = {work.name for work in WORKS} | {"idle clients", "idle WebSockets"}
    assert {work for peer in PEERS.values() for work in peer.works} <= works


def test_every_target_is_about_a_work_and_a_peer() -> None:
    works = {work.name for work in WORKS} | {"idle clients", "idle WebSockets", "many servers"}
    assert {target.work for target in TARGETS} <= works
    assert {target.against for target in TARGETS} <= {*PEERS, "", "three servers"}


def test_many_servers_have_as_many_addresses() -> None:
    addresses = {address(number) for number in range(70_000)}
    assert len(addresses) == 70_000
    assert all(one.startswith("127.") and one != "127.0.0.1" for one in addresses)
    assert all(0 <= int(part) < 256 for one in addresses for part in one.split("."))


def test_the_client_has_a_kind_for_each_load() -> None:
    assert set(KINDS) == {"get", "upload", "latency", "small", "websocket"}
