"""A whole service on a network in memory: servers die and come back, and operators take them out."""

import json
import re
from collections.abc import Callable, Iterator
from os import urandom
from pathlib import Path
from typing import Any

import pytest

from comfyproxy.comfyui.identity import mint_prompt_id
from comfyproxy.core.balancing.backend import AdminState, fingerprint
from comfyproxy.errors import UnknownServer
from comfyproxy.service.daemon import ProxyService
from comfyproxy.service.sources import Sources
from comfyproxy.testing import MemoryNetwork, RawClient, ScriptedBackend, Step

GET = b"GET /view HTTP/1.1\r\nHost: a\r\n\r\n"
PROMPT = b"GET /prompt HTTP/1.1"
BODY = b'{"exec_info": {"queue_remaining": 0}}'
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(BODY), BODY)


class Farm:
    """``size`` servers at 10.0.0.1 and so on, and a service in front of them."""

    def __init__(self, size: int, directory: Path, after: bytes = b"\r\n\r\n", **options: Any) -> None:
        self.network = MemoryNetwork()
        self.servers = [ScriptedBackend([Step(after=after, send=ANSWER)]) for _ in range(size)]
        for place in range(size):
            self.revive(place)
        self.file = directory / "servers.txt"
        self.file.write_text("\n".join(f"{self.url(place)} name=gpu{place}" for place in range(size)))
        given = {"file": [str(self.file)], "access_log": "none", "plain_io": True, "drain_timeout": "0"}
        given["placement"] = "client"
        self.service = ProxyService(self.network, Sources(given | options, {}, str(directory)))
        self.service.startService()
        self.pass_time(0.5)

    def fingerprint(self, place: int) -> str:
        (pool,) = self.service.config.pools.values()
        return fingerprint(pool.addresses[place])

    def url(self, place: int) -> str:
        return f"http://10.0.0.{place + 1}:8188"

    def revive(self, place: int) -> None:
        self.network.listenTCP(8188, self.servers[place], interface=f"10.0.0.{place + 1}")

    def kill(self, place: int) -> None:
        del self.network.ports[f"10.0.0.{place + 1}", 8188]
        for connection in self.servers[place].open_connections:
            connection.reset()

    def pass_time(self, seconds: float) -> None:
        for _ in range(round(seconds * 4)):
            self.network.advance(0.25)

    def ask(self, times: int = 1, request: bytes = GET) -> list[bytes]:
        """The status lines of the answers to requests, each on a connection of its own."""
        lines = []
        for _ in range(times):
            client = self.network.connect(RawClient(), "127.0.0.1", 8080)
            client.send(request)
            self.network.run()
            lines.append(client.received.partition(b"\r\n")[0])
            client.close()
            self.network.run()
        return lines

    def served(self) -> list[int]:
        """The requests that each server got since this was last asked, without the checks."""
        counts = []
        for server in self.servers:
            counts.append(sum(not request.startswith(PROMPT) for request in server.requests))
            server.requests.clear()
        return counts


@pytest.fixture
def farm(tmp_path: Path) -> Iterator[Callable[..., Farm]]:
    farms: list[Farm] = []

    def make(size: int, **options: Any) -> Farm:
        farms.append(Farm(size, tmp_path, **options))
        return farms[-1]

    yield make
    for one in farms:
        one.service.stopService()
        one.network.run()
        one.pass_time(1)
        assert one.network.getDelayedCalls() == []
        assert [server.open_connections for server in one.servers] == [[] for _ in one.servers]


def logged(caplog: Any) -> list[str]:
    """What the log says of changes."""
    return [line for line in caplog.messages if re.match(r"http:\S+ is |Pool .* servers up", line)]


def test_server_that_dies_gets_nothing_after_three_checks_and_something_again_when_it_is_back(
    farm: Any, caplog: Any
) -> None:
    one = farm(3)
    assert one.ask(6) == [b"HTTP/1.1 200 OK"] * 6
    assert one.served() == [2, 2, 2]
    one.kill(1)
    one.pass_time(8)
    assert one.ask(6) == [b"HTTP/1.1 200 OK"] * 6
    assert one.served() == [3, 0, 3]
    one.revive(1)
    one.pass_time(8)
    assert one.ask(6) == [b"HTTP/1.1 200 OK"] * 6
    assert one.served() == [2, 2, 2]
    one.pass_time(60)
    assert logged(caplog) == [
        "http://10.0.0.2:8188 is DOWN: connection refused (3 checks)",
        "http://10.0.0.2:8188 is UP: GET /prompt was answered (2 checks)",
    ]


def test_server_that_comes_back_reaches_its_share_little_by_little(farm: Any) -> None:
    one = farm(2, slow_start="60s", probe_rise="1")
    one.kill(1)
    one.pass_time(8)
    one.revive(1)
    one.pass_time(6)
    one.served()
    shares = []
    for _ in range(4):
        one.ask(24)
        shares.append(one.served()[1])
        one.pass_time(20)
    assert shares[0] in (2, 3, 4)
    assert shares == sorted(shares)
    assert shares[3] == 12


@pytest.mark.parametrize("balance", ["least-conn", "random-two", "ewma", "first", "ip-hash"])
def test_no_policy_chooses_a_dead_server(farm: Any, balance: str) -> None:
    one = farm(3, balance=balance)
    one.kill(0)
    one.pass_time(8)
    one.served()
    assert one.ask(12) == [b"HTTP/1.1 200 OK"] * 12
    assert one.served()[0] == 0
    assert not one.servers[0].open_connections


def test_server_whose_requests_fail_is_left_out_and_tried_again(farm: Any, caplog: Any) -> None:
    one = farm(2, app="http", eject_time="20s")
    one.kill(0)
    one.ask(12)
    one.revive(0)
    assert one.ask(4) == [b"HTTP/1.1 200 OK"] * 4
    assert one.served() == [0, 16]
    one.pass_time(20)
    one.ask(4)
    assert one.served() == [2, 2]
    assert logged(caplog) == [
        "http://10.0.0.1:8188 is left out for 20 s: no connection (5 requests in a row)",
        "http://10.0.0.1:8188 is tried again",
    ]


def test_server_that_is_not_there_at_the_start_gets_nothing_from_the_first_check_on(farm: Any) -> None:
    one = farm(2)
    one.file.write_text(f"{one.url(0)}\nhttp://10.0.0.9:8188\n")
    one.service.reload()
    one.ask(4)
    assert one.served() == [4, 0]


def test_requests_are_served_before_anything_is_known(farm: Any) -> None:
    one = farm(2, after=GET[:9], probe_timeout="1h")
    assert [len(server.connections) for server in one.servers] == [1, 1]
    assert one.ask(4) == [b"HTTP/1.1 200 OK"] * 4
    assert one.served() == [2, 2]


def test_all_dead_requests_are_tried_all_the_same(farm: Any, caplog: Any) -> None:
    one = farm(2)
    one.kill(0)
    one.kill(1)
    one.pass_time(8)
    assert logged(caplog)[-1] == "Pool default: 0 of 2 servers up, so all of them get requests"
    one.revive(0)
    assert one.ask(2) == [b"HTTP/1.1 200 OK"] * 2


def test_kept_connections_to_a_dead_server_are_closed(farm: Any) -> None:
    one = farm(2)
    one.ask(2)
    assert len(one.servers[0].open_connections) == 1
    del one.network.ports["10.0.0.1", 8188]
    one.pass_time(8)
    assert one.servers[0].open_connections == []


def test_without_checks_nothing_but_requests_reaches_a_server(farm: Any) -> None:
    one = farm(2, probe="none")
    one.pass_time(60)
    assert [server.requests for server in one.servers] == [[], []]


def test_checks_may_be_switched_on_by_a_reload(farm: Any, tmp_path: Path, caplog: Any) -> None:
    (tmp_path / "tap.conf").write_text("probe = 'none'\n")
    one = farm(2)
    one.kill(0)
    one.pass_time(30)
    assert logged(caplog) == []
    (tmp_path / "tap.conf").write_text("probe = 'tcp'\nprobe_interval = '1s'\n")
    one.service.reload()
    one.pass_time(4)
    assert logged(caplog) == ["http://10.0.0.1:8188 is DOWN: connection refused (3 checks)"]


def test_operator_drains_a_server_and_takes_it_back_and_reloads_keep_that(farm: Any, caplog: Any) -> None:
    one = farm(2)
    assert [backend.url for backend in one.service.set_state("gpu0", AdminState.DRAIN)] == [one.url(0)]
    one.service.reload()
    one.ask(4)
    assert one.served() == [0, 4]
    one.service.set_state(one.url(0), AdminState.READY)
    one.ask(4)
    assert one.served() == [2, 2]
    assert logged(caplog) == [f"{one.url(0)} is set to {state}" for state in ("DRAIN", "READY")]


def test_maintenance_closes_what_is_kept_and_stops_the_checks(farm: Any) -> None:
    one = farm(2)
    one.ask(2)
    one.service.set_state("gpu0", AdminState.MAINT)
    one.network.run()
    assert one.servers[0].open_connections == []
    for server in one.servers:
        server.requests.clear()
    one.kill(0)
    one.pass_time(20)
    assert one.servers[0].requests == []
    one.revive(0)
    one.service.set_state("gpu0", AdminState.READY)
    one.pass_time(0.25)
    one.ask(4)
    assert one.served() == [2, 2]


def about_prompt(farm: Farm, place: int) -> bytes:
    """Asks for a prompt that is on one server only."""
    prompt = mint_prompt_id(farm.fingerprint(place), urandom)
    return f"GET /api/history/{prompt} HTTP/1.1\r\nHost: a\r\n\r\n".encode()


def of_client(farm: Farm, place: int) -> bytes:
    """Asks for something that any server has, for a client that is on one of them."""
    cookie = f"comfyproxy={farm.fingerprint(place)}"
    return f"GET /object_info HTTP/1.1\r\nHost: a\r\nCookie: {cookie}\r\n\r\n".encode()


def test_what_only_a_dead_server_has_is_refused_at_once_as_comfyui_would(farm: Any) -> None:
    one = farm(2)
    assert one.ask(2, about_prompt(one, 0)) == [b"HTTP/1.1 200 OK"] * 2
    assert one.served() == [2, 0]
    one.kill(0)
    one.pass_time(8)
    client = one.network.connect(RawClient(), "127.0.0.1", 8080)
    client.send(about_prompt(one, 0))
    one.network.run()
    head, _, body = client.received.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 503 ")
    error = json.loads(body)["error"]
    assert (error["type"], error["message"]) == (
        "comfyproxy_service_unavailable",
        "The server that this belongs to is out of use.",
    )
    client.close()
    one.network.run()
    assert one.served() == [0, 0]


@pytest.mark.parametrize(
    ("state", "served"),
    [(AdminState.READY, [4, 0]), (AdminState.DRAIN, [4, 0]), (AdminState.MAINT, [0, 4])],
)
def test_client_of_a_server_goes_there_unless_that_is_in_maintenance(
    farm: Any, state: AdminState, served: list[int]
) -> None:
    one = farm(2)
    one.service.set_state("gpu0", state)
    assert one.ask(4, of_client(one, 0)) == [b"HTTP/1.1 200 OK"] * 4
    assert one.served() == served


def test_client_of_a_dead_server_goes_to_another(farm: Any) -> None:
    one = farm(2)
    one.kill(0)
    one.pass_time(8)
    assert one.ask(4, of_client(one, 0)) == [b"HTTP/1.1 200 OK"] * 4
    assert one.served() == [0, 4]


def test_server_that_nobody_knows_is_an_error_and_nothing_changes(farm: Any) -> None:
    one = farm(2)
    with pytest.raises(UnknownServer, match=r"No pool has a server 'http://10\.0\.0\.3:8188'; there are "):
        one.service.set_state("http://10.0.0.[1-3]:8188", AdminState.MAINT)
    one.ask(4)
    assert one.served() == [2, 2]
