"""How it is measured: every proxy runs at once, and each has its turn in every round.

So what else the machine does falls on all of them alike, and the ratios stand where the figures do not.
"""

import contextlib
import resource
import socket
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.backends import SMALL, Backends
from benchmarks.client import Failed, connect, open_websocket, read_head, request
from benchmarks.peers import DIRECT, Peer, Place, Setting
from benchmarks.processes import DidNotStart, Process, free_ports
from benchmarks.works import SMALL_PATH, Work, small_requests

Samples = dict[str, dict[str, list[float]]]
"""For each peer and metric, one value a round, in seconds or octets for one unit of the work."""

IDLE = 2000
"""Connections by which memory is measured, beyond the first `FIRST`."""

FIRST = 200

WARM_UP = 0.3
"""Seconds of load before what counts."""


@dataclass
class Rounds:
    """The rounds of one run: how many, how long each load lasts, where files go, and who gets told."""

    directory: Path
    backends: Backends
    count: int
    seconds: float
    say: Callable[[str], None]
    failures: dict[str, str] = field(default_factory=dict)

    def run(self, work: Work, peers: Sequence[Peer]) -> Samples:
        """Measure ``work`` on each of ``peers``."""
        chosen = [peer for peer in peers if peer.takes_part(work.name)]
        setting = Setting(work.servers(self.backends), work.log, work.large, sockets=work.sockets)
        self._check_backends()
        with self.running(work.name, chosen, setting) as processes:
            samples: Samples = {}
            for number in range(self.count + 1):
                self.say(f"{work.title}: " + (f"round {number} of {self.count}" if number else "warming up"))
                if work.times:
                    self._measure_direct(work, samples)
                for name, process in list(processes.items()):
                    try:
                        if number:
                            self._measure(name, process, work, samples)
                        else:
                            work.load(process.port, WARM_UP)
                    except Failed as error:
                        self._fail(work.name, name, error)
                        del processes[name]
            return samples

    def _check_backends(self) -> None:
        for server in self.backends.three:
            try:
                _check(int(server.rpartition(":")[2]))
            except (Failed, OSError) as error:
                said = (self.directory / "backends" / "output0").read_text()[-500:]
                raise SystemExit(f"The backend is gone: {error}\n{said}") from error

    def _measure_direct(self, work: Work, samples: Samples) -> None:
        """Without any proxy: what all of them add to."""
        _, _, port = self.backends.three[0].rpartition(":")
        result = work.load(int(port), self.seconds)
        for metric in ("p50", "p99"):
            samples.setdefault(DIRECT, {}).setdefault(metric, []).append(result[metric])

    def _measure(self, name: str, process: Process, work: Work, samples: Samples) -> None:
        before = process.cpu()
        result = work.load(process.port, self.seconds)
        used = process.cpu() - before
        of_peer = samples.setdefault(name, {})
        of_peer.setdefault("cpu", []).append(used / result["count"])
        of_peer.setdefault("rate", []).append(result["count"] / result["seconds"])
        for metric in ("p50", "p99"):
            if metric in result:
                of_peer.setdefault(metric, []).append(result[metric])

    def idle_memory(self, peers: Sequence[Peer], websockets: bool) -> Samples:
        """Resident octets that one idle client takes: the slope from `FIRST` connections to `IDLE` more."""
        name = "idle WebSockets" if websockets else "idle clients"
        servers = self.backends.sockets if websockets else self.backends.three
        setting = Setting(servers, sockets=websockets)
        samples: Samples = {}
        chosen = [peer for peer in peers if peer.takes_part(name)]
        with self.running(name, chosen, setting) as processes:
            for peer, process in processes.items():
                self.say(f"memory of {name}: {peer}")
                try:
                    value = _slope(process, websockets)
                except (Failed, OSError) as error:
                    self._fail(name, peer, error)
                else:
                    samples[peer] = {"memory": [value]}
        return samples

    def many_servers(self, peers: Sequence[Peer], count: int) -> tuple[Samples, Samples]:
        """The cost of a small request with three servers, and with ``count`` of which some come and go.

        One proxy after the other: each may hold a connection to every server. Servers are not checked: how
        many checks there are has nothing to do with how many requests.
        """
        few: Samples = {}
        many: Samples = {}
        for peer in peers:
            for servers, samples in ((self.backends.three, few), (self.backends.many(count), many)):
                setting = Setting(servers, checked=False)
                with self.running(f"{len(servers)} servers", [peer], setting) as processes:
                    for process in processes.values():
                        self.say(f"{len(servers)} servers: {peer.name}")
                        try:
                            self._many(peer.name, process, len(servers), samples)
                        except Failed as error:
                            self._fail(f"{len(servers)} servers", peer.name, error)
        return few, many

    def _many(self, name: str, process: Process, count: int, samples: Samples) -> None:
        work = Work("many", "", small_requests(32))
        asked = 0
        for _ in range(20):  # until each server has been asked twice
            asked += work.load(process.port, 1)["count"]
            if asked > 2 * count:
                break
        for _ in range(self.count):
            self._measure(name, process, work, samples)

    @contextlib.contextmanager
    def running(self, what: str, peers: Sequence[Peer], setting: Setting) -> Iterator[dict[str, Process]]:
        """Start ``peers``, and leave out those that do not start or do not answer."""
        started: dict[str, Process] = {}
        try:
            for peer, port in zip(peers, free_ports(len(peers)), strict=True):
                directory = self.directory / f"{what}-{port}".replace(" ", "-")
                directory.mkdir(mode=0o755)
                started[peer.name] = peer.start(setting, Place(port, directory))
            processes = dict(started)
            for name, process in started.items():
                try:
                    process.wait_until_listening()
                    if setting.servers[0] not in self.backends.sockets:
                        _check(process.port)
                except (DidNotStart, Failed, OSError) as error:
                    self._fail(what, name, error)
                    del processes[name]
            yield processes
        finally:
            for process in started.values():
                process.stop()

    def _fail(self, what: str, peer: str, error: Exception) -> None:
        self.failures[f"{what}: {peer}"] = str(error)
        self.say(f"{peer} is left out of '{what}': {str(error)[-300:]}")


def raise_descriptor_limit() -> int:
    """Let this process, and those it starts, open as many files as it may; returns how many."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def _check(port: int) -> None:
    """One small request, whose answer must be the backend's."""
    with connect(port) as sock:
        _ask(sock, port)


def _ask(sock: socket.socket, port: int) -> None:
    sock.sendall(request("GET", SMALL_PATH, port))
    head, body = read_head(sock)
    while len(body) < len(SMALL):
        more = sock.recv(65536)
        if not more:
            break
        body += more
    if b" 200 " not in head.split(b"\r\n")[0] or SMALL not in body:
        raise Failed(f"the answer is {head[:200]!r} {body[:100]!r}")


def _slope(process: Process, websockets: bool) -> float:
    sockets: list[socket.socket] = []

    def open_more(count: int) -> None:
        for _ in range(count):
            if websockets:
                sockets.append(open_websocket(process.port, "/ws"))
            else:
                sockets.append(connect(process.port))
                _ask(sockets[-1], process.port)

    try:
        open_more(FIRST)
        before = process.memory()
        open_more(IDLE)
        return (process.memory() - before) / IDLE
    finally:
        for sock in sockets:
            sock.close()
