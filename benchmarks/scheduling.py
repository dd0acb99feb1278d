"""How well prompts are placed on simulated GPUs, beside other ways and beside what no schedule can beat.

    python -m benchmarks.scheduling [--json FILE] [--chart FILE.svg] [--servers 8 100] [--seeds 3]

Nothing here takes real time: it is a simulation by events in which each way to place prompts meets the same
jobs, on servers that run their queue by its numbers as ComfyUI does and load models when they need others.
``bound`` is the larger of all the work divided by the servers and the moment at which the last job could be
done at the earliest; loading of models is not in it. `Scheduler` is told nothing of the jobs but their
workflows: durations, loading times and speeds it has to learn (``known``: from runs before).
"""

import argparse
import json
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from heapq import heapify, heappop, heappush
from itertools import count
from pathlib import Path
from statistics import fmean, median
from time import process_time

from benchmarks.chart import Panel, svg
from comfyproxy.comfyui.scheduling.scheduler import Move, Scheduler
from comfyproxy.comfyui.workflow import Workflow
from comfyproxy.core.balancing.backend import Backend
from comfyproxy.core.configuration.addresses import parse_addresses

MOVING = 0.1
"""Seconds that it takes to move a prompt: to delete it, to look whether it is gone, and to submit it."""

JOBS = 50
"""Jobs for each server."""

LIGHT = "light"
"""The client of the scenario ``one floods`` whose wait counts."""


@dataclass(frozen=True)
class Task:
    """A prompt that ``client`` submits at the time ``at``; it runs for ``seconds`` on a server of speed 1."""

    at: float
    client: str
    workflow: Workflow
    seconds: float


@dataclass(frozen=True)
class Scenario:
    """What is submitted to which servers; ``loading`` has the seconds that each model needs."""

    name: str
    tasks: Sequence[Task]
    speeds: Sequence[float]
    loading: Mapping[str, float]

    @property
    def bound(self) -> float:
        """Seconds in which nobody can do it."""
        work = sum(task.seconds for task in self.tasks) / sum(self.speeds)
        return max(work, *(task.at + task.seconds / max(self.speeds) for task in self.tasks))


@dataclass(frozen=True)
class Result:
    """What came of a scenario: ``makespan`` is over the bound, the waits are means in seconds."""

    makespan: float
    wait: float
    light_wait: float
    loads: float
    moves: float


@dataclass
class Gpu:
    """One simulated ComfyUI: its queue is ordered by number, one prompt runs at a time."""

    speed: float
    queue: list[tuple[float, str]] = field(default_factory=list)
    running: str = ""
    model: str = ""

    def __len__(self) -> int:
        return len(self.queue) + bool(self.running)


class Simulation:
    """One scenario; `_choose` says which server gets a task, and with which number."""

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self.gpus = [Gpu(speed) for speed in scenario.speeds]
        self.now = 0.0
        self.moves = 0
        self.loads = 0
        self._turn = count()
        self._ids = count()
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._tasks: dict[str, Task] = {}
        self._waits: list[tuple[str, float]] = []

    def run(self) -> Result:
        """Let everything happen."""
        for task in self.scenario.tasks:
            self._at(task.at, partial(self._submit, task))
        while self._events:
            self.now, _, event = heappop(self._events)
            event()
        waits = [wait for _, wait in self._waits]
        light = [wait for client, wait in self._waits if client == LIGHT] or waits
        return Result(self.now / self.scenario.bound, fmean(waits), fmean(light), self.loads, self.moves)

    def _choose(self, task: Task, prompt_id: str) -> tuple[int, float]:
        raise NotImplementedError

    def _at(self, time: float, event: Callable[[], None]) -> None:
        heappush(self._events, (time, next(self._ids), event))

    def _submit(self, task: Task) -> None:
        prompt_id = f"prompt{len(self._tasks)}"
        self._tasks[prompt_id] = task
        index, number = self._choose(task, prompt_id)
        self._put(index, number, prompt_id)

    def _put(self, index: int, number: float, prompt_id: str) -> None:
        heappush(self.gpus[index].queue, (number, prompt_id))
        self._go_on(index)

    def _go_on(self, index: int) -> None:
        gpu = self.gpus[index]
        if gpu.queue and not gpu.running:
            _, prompt_id = heappop(gpu.queue)
            task = self._tasks[prompt_id]
            gpu.running = prompt_id
            self._waits.append((task.client, self.now - task.at))
            model = next(iter(task.workflow.models))
            is_cold, gpu.model = model != gpu.model, model
            self.loads += is_cold
            seconds = task.seconds / gpu.speed + is_cold * self.scenario.loading[model]
            self._started(prompt_id)
            self._at(self.now + seconds, lambda: self._done(index, prompt_id))

    def _done(self, index: int, prompt_id: str) -> None:
        self.gpus[index].running = ""
        self._ended(prompt_id)
        self._go_on(index)

    def _started(self, prompt_id: str) -> None:
        pass

    def _ended(self, prompt_id: str) -> None:
        pass


class RoundRobin(Simulation):
    """The next server."""

    def _choose(self, task: Task, prompt_id: str) -> tuple[int, float]:
        turn = next(self._turn)
        return turn % len(self.gpus), float(turn)


class LeastConn(Simulation):
    """nginx's least_conn: a submission is over at once, so what it counts are WebSockets, one per client."""

    def _choose(self, task: Task, prompt_id: str) -> tuple[int, float]:
        clients = len({task.client for task in self.scenario.tasks})
        sockets = [len(range(index, clients, len(self.gpus))) for index in range(len(self.gpus))]
        least = [index for index, number in enumerate(sockets) if number == min(sockets)]
        turn = next(self._turn)
        return least[turn % len(least)], float(turn)


class ByClient(Simulation):
    """Each client has its server."""

    def _choose(self, task: Task, prompt_id: str) -> tuple[int, float]:
        clients = sorted({task.client for task in self.scenario.tasks})
        return clients.index(task.client) % len(self.gpus), float(next(self._turn))


class FewestPrompts(Simulation):
    """The server with the fewest prompts, running and pending."""

    def _choose(self, task: Task, prompt_id: str) -> tuple[int, float]:
        index = min(range(len(self.gpus)), key=lambda index: len(self.gpus[index]))
        return index, float(next(self._turn))


class Scheduled(Simulation):
    """`Scheduler`, which has never seen any of the work."""

    def __init__(self, scenario: Scenario) -> None:
        super().__init__(scenario)
        urls = f"http://gpu[1-{len(self.gpus)}]:8188"
        self.servers = [Backend(address, index) for index, address in enumerate(parse_addresses(urls))]
        self.scheduler = Scheduler()
        for server in self.servers:
            self.scheduler.told(server, 0)

    def _choose(self, task: Task, prompt_id: str) -> tuple[int, float]:
        placed = self.scheduler.place(prompt_id, task.workflow, task.client, self.servers, self.now)
        return placed.backend.index, placed.number

    def _submit(self, task: Task) -> None:
        super()._submit(task)
        self._rebalance()

    def _started(self, prompt_id: str) -> None:
        self.scheduler.started(prompt_id, self.now)

    def _ended(self, prompt_id: str) -> None:
        self.scheduler.ended(prompt_id, self.now, True)

    def _done(self, index: int, prompt_id: str) -> None:
        super()._done(index, prompt_id)
        self._rebalance()

    def _rebalance(self) -> None:
        while (move := self.scheduler.next_move(self.now, lambda _: True, lambda *_: True)) is not None:
            self.moves += 1
            queue = self.gpus[move.source.index].queue
            queue[:] = [entry for entry in queue if entry[1] != move.prompt_id]
            heapify(queue)
            self._at(self.now + MOVING, partial(self._arrive, move))

    def _arrive(self, move: Move) -> None:
        self.scheduler.moved(move)
        self._put(move.target.index, move.number, move.prompt_id)


class ScheduledKnown(Scheduled):
    """`Scheduler`, when each kind of work has run on each server before: with and without loading."""

    def __init__(self, scenario: Scenario) -> None:
        super().__init__(scenario)
        kinds = {task.workflow: task.seconds for task in scenario.tasks}
        clock = -1e9
        for server, speed in zip(self.servers, scenario.speeds, strict=True):
            for workflow, seconds in kinds.items():
                self.scheduler.unloaded(server)
                loading = sum(scenario.loading[model] for model in workflow.models)
                for took in (loading + seconds / speed, seconds / speed):
                    self.scheduler.place("before", workflow, "", [server], clock)
                    self.scheduler.started("before", clock)
                    clock += took
                    self.scheduler.ended("before", clock, True)
            self.scheduler.unloaded(server)


PLACES: Mapping[str, type[Simulation]] = {
    "round robin": RoundRobin,
    "least_conn": LeastConn,
    "by client": ByClient,
    "fewest prompts": FewestPrompts,
    "comfyproxy": Scheduled,
    "comfyproxy, known": ScheduledKnown,
}


def scenarios(seed: int, servers: int) -> Iterator[Scenario]:
    """What is measured: the same for the same seed."""
    dice = random.Random(seed)
    loading = {f"model{number}": dice.choice((3.0, 8.0, 15.0)) for number in range(4)}
    kinds = [
        (Workflow(frozenset(("KSampler",)), frozenset((dice.choice(list(loading)),)), f"kind{number}"), took)
        for number, took in enumerate((2.0, 2.0, 3.0, 3.0, 4.0, 5.0, 8.0, 8.0, 12.0, 12.0, 60.0, 60.0))
    ]
    like = [1.0] * servers

    def task(at: float = 0.0, kind: tuple[Workflow, float] | None = None, client: str = "") -> Task:
        workflow, seconds = kind or dice.choice(kinds)
        return Task(at, client or f"client{dice.randrange(5)}", workflow, seconds * dice.uniform(0.9, 1.1))

    mixed = [task() for _ in range(JOBS * servers)]
    yield Scenario("all at once", mixed, like, loading)
    span = sum(one.seconds for one in mixed) / servers / 0.9
    spread = [task(dice.random() * span) for _ in mixed]
    yield Scenario("arriving at 90 % load", spread, like, loading)
    short, long = kinds[0], kinds[-1]
    steps = [task(0.0, long if number % servers < servers / 8 else short) for number in range(JOBS * servers)]
    yield Scenario("long ones in step", steps, like, loading)
    yield Scenario("unlike servers", mixed, [dice.choice((0.5, 1.0, 2.0, 4.0)) for _ in like], loading)
    flood = [task(client="flood") for _ in range(JOBS * servers)]
    visits = [task(30.0 + 20.0 * number, kinds[number % 10], LIGHT) for number in range(10)]
    yield Scenario("one floods", [*flood, *visits], like, loading)


def measure(servers: int, seeds: int) -> dict[str, dict[str, Result]]:
    """The mean results of each scenario, by the ways to place."""
    found: dict[str, dict[str, list[Result]]] = {}
    for seed in range(seeds):
        for scenario in scenarios(seed, servers):
            for place, simulation in PLACES.items():
                result = simulation(scenario).run()
                found.setdefault(scenario.name, {}).setdefault(place, []).append(result)
    return {
        name: {place: _mean(results) for place, results in places.items()} for name, places in found.items()
    }


def _mean(results: Sequence[Result]) -> Result:
    rows = [asdict(result) for result in results]
    return Result(**{key: fmean(row[key] for row in rows) for key in rows[0]})


def table(results: Mapping[str, Mapping[str, Result]]) -> Iterator[str]:
    """The lines of a Markdown table."""
    yield "| | | makespan, of the bound | mean wait, s | models loaded | moved |"
    yield "|---|---|---|---|---|---|"
    for name, places in results.items():
        for place, one in places.items():
            wait = f"{one.wait:.0f}" + (f" ({one.light_wait:.0f})" if one.light_wait != one.wait else "")
            yield f"| {name} | {place} | {one.makespan:.2f} | {wait} | {one.loads:.0f} | {one.moves:.0f} |"
            name = ""


def panels(results: Mapping[str, Mapping[str, Result]], servers: int) -> Iterator[Panel]:
    """What is drawn: the makespan of each scenario, the ways in their order."""
    for name, places in results.items():
        costs = [(place, one.makespan) for place, one in places.items()]
        yield Panel(f"{servers} servers, {name}: time until all is done, of the least possible", costs)


def choice_cost(servers: int = 100, pending: int = 1000, rounds: int = 50) -> tuple[float, float]:
    """Milliseconds of processor time to place one prompt among so many, and if something was just learned."""
    (scenario,) = (one for one in scenarios(0, servers) if one.name == "all at once")
    simulation = Scheduled(scenario)
    scheduler, backends = simulation.scheduler, simulation.servers
    for number, task in enumerate(scenario.tasks[:pending]):
        scheduler.place(f"pending{number}", task.workflow, task.client, backends, 0.0)
    plain, learned = [], []
    for number, task in enumerate(scenario.tasks[-rounds:]):
        for kept in (learned, plain):
            start = process_time()
            scheduler.place(f"new{number}", task.workflow, "new", backends, 0.0)
            kept.append(process_time() - start)
            scheduler.ended(f"new{number}", 0.0, False)
        scheduler.place("done", task.workflow, "new", backends, 0.0)
        scheduler.started("done", 0.0)
        scheduler.ended("done", task.seconds, True)
    return median(plain) * 1e3, median(learned) * 1e3


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, and write what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--servers", type=int, nargs="+", default=[8, 100])
    parser.add_argument("--seeds", type=int, default=3, help="how many draws of the jobs the means are of")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--chart", type=Path, metavar="FILE.svg", help="of the first number of servers")
    options = parser.parse_args(arguments)
    found = {}
    for servers in options.servers:
        found[servers] = measure(servers, options.seeds)
        print(f"{servers} servers\n", *table(found[servers]), "", sep="\n")
    plain, learned = choice_cost()
    print(f"Placing a prompt among 100 servers with 1000 prompts pending takes {plain:.1f} ms of processor")
    print(f"time, and {learned:.1f} ms when something was learned since the last one.")
    if options.json:
        rows = {
            str(servers): {
                name: {place: asdict(one) for place, one in places.items()}
                for name, places in results.items()
            }
            for servers, results in found.items()
        }
        options.json.write_text(json.dumps(rows, indent=2) + "\n")
    if options.chart:
        first = options.servers[0]
        options.chart.write_text(svg(list(panels(found[first], first))))


if __name__ == "__main__":
    main()
