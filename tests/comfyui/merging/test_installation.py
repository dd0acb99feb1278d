"""What the servers of a pool are and can do."""

from typing import Any

import pytest

from comfyproxy.comfyui.merging.installation import merge_features, merge_system_stats, server_name
from tests.comfyui.merging.servers import A, B, C, reply, servers, silence, vector


def stats(name: str = "cpu", **system: Any) -> Any:
    real = vector("system_stats.json")
    return {"system": real["system"] | system, "devices": [real["devices"][0] | {"name": name}]}


def test_the_devices_of_all_servers_are_told_apart() -> None:
    merged = merge_system_stats([reply(A, stats("cuda:0 X")), reply(B, stats("cuda:0 X"))])
    assert [(device["index"], device["name"]) for device in merged["devices"]] == [
        (0, "server 1: cuda:0 X"),
        (1, "server 2: cuda:0 X"),
    ]
    assert all(device.keys() == stats()["devices"][0].keys() for device in merged["devices"])


def test_a_server_is_called_by_its_name_and_never_by_its_address() -> None:
    assert server_name(B) == "server 2"
    named = servers("http://10.0.0.1:8188")[0]
    named.address = type(named.address)("http", "10.0.0.1", 8188, name="big")
    assert server_name(named) == "big"


def test_the_system_is_the_first_ones_with_the_memory_of_all() -> None:
    one, other = stats(ram_total=10, ram_free=4, os="posix"), stats(ram_total=20, ram_free=5, os="nt")
    system = merge_system_stats([silence(C), reply(A, one), reply(B, other)])["system"]
    assert (system["os"], system["ram_total"], system["ram_free"]) == ("posix", 30, 9)
    assert system.keys() == one["system"].keys()


def test_servers_of_one_machine_share_its_memory() -> None:
    pool = servers("http://box:[8188-8190]")
    replies = [reply(backend, stats(ram_total=10, ram_free=4)) for backend in pool]
    assert merge_system_stats(replies)["system"]["ram_total"] == 10


@pytest.mark.parametrize(
    "strange", [[], {}, {"system": 3, "devices": {}}, {"devices": [None, 3]}, {"system": {"ram_total": "x"}}]
)
def test_strange_answers_do_not_cost_the_others(strange: object) -> None:
    merged = merge_system_stats([reply(A, strange), reply(B, stats())])
    assert [device["name"] for device in merged["devices"]] == ["server 2: cpu"]


def test_nobody_says_anything() -> None:
    assert merge_system_stats([silence(A)]) == {"system": {}, "devices": []}
    assert merge_features([]) == {}


def test_the_pool_can_do_what_all_can() -> None:
    one = {"previews": True, "assets": True, "max_upload_size": 100, "extension": {"manager": {"v4": True}}}
    other = {
        "previews": True,
        "assets": False,
        "max_upload_size": 8.0,
        "extension": {"manager": {"v4": False}},
    }
    assert merge_features([one, other]) == {
        "previews": True,
        "assets": False,
        "max_upload_size": 8.0,
        "extension": {"manager": {"v4": False}},
    }


def test_what_an_older_server_does_not_know_it_cannot_do() -> None:
    merged = merge_features([{"a": True, "b": {"c": 1}, "d": "x", "e": 1}, {"b": 3, "f": True}])
    assert merged == {"a": False}


def test_what_cannot_be_compared_is_the_firsts() -> None:
    assert merge_features([{"a": "x", "b": 1}, {"a": "y", "b": "z"}]) == {"a": "x", "b": 1}


def test_one_server_can_do_what_it_says() -> None:
    assert merge_features([vector("features.json")]) == vector("features.json")
