"""How well prompts are placed: N simulated GPUs, jobs of known and skewed length, models, clients.

    python -m benchmarks.scheduling [--servers 8] [--jobs 400] [--seed 1] [--json]

Nothing here takes real time: it is a simulation by events, in which each way to place prompts meets the same
jobs. The makespan is compared with a bound that no schedule can beat: the larger of all the work divided by
the number of servers, and the longest job (each with its model loaded once).
"""

import argparse
import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush
from itertools import count

from comfyproxy.comfyui.scheduling.choice import LOADING, choose, take_over
from comfyproxy.comfyui.scheduling.durations import Durations
from comfyproxy.comfyui.scheduling.fairness import Fairness
from comfyproxy.comfyui.scheduling.workload import Job, Workload, is_cold
from comfyproxy.comfyui.workflow import Workflow


@dataclass(frozen=True)
class Task:
    at: float
    client: str
    workflow: Workflow
    seconds: float


@dataclass
class Result:
    makespan: float
    mean_wait: float
    loads: int


def jobs(
    number: int, seed: int, kinds: int = 12, models: int = 4, spread: float = 0.0, clients: int = 5
) -> list[Task]:
    dice = random.Random(seed)
    works = []
    for kind in range(kinds):
        model = f"model{dice.randrange(models)}.safetensors"
        seconds = dice.choice((2, 3, 4, 5, 8, 12, 60))
        works.append((Workflow(frozenset(("KSampler",)), frozenset((model,)), f"kind{kind}"), float(seconds)))
    return [
        Task(
            dice.random() * spread, f"client{dice.randrange(clients)}", work, seconds * dice.uniform(0.9, 1.1)
        )
        for work, seconds in (dice.choice(works) for _ in range(number))
    ]


def bound(tasks: Sequence[Task], servers: int) -> float:
    models = {task.workflow.models for task in tasks}
    work = sum(task.seconds for task in tasks) + len(models) * LOADING
    return max(work / servers, max(task.seconds for task in tasks) + LOADING)


class Simulation:
    def __init__(self, servers: int, place: str) -> None:
        self.loads = [Workload(f"gpu{index}") for index in range(servers)]
        self.place = place
        self.durations = Durations()
        self.fairness = Fairness()
        self.turn = count()
        self.ids = count()
        self.events: list[tuple[float, int, Callable[[], None]]] = []
        self.now = 0.0
        self.waits: list[float] = []
        self.changes = 0
        self.tasks: dict[str, Task] = {}
        self.models = {}

    def run(self, tasks: Sequence[Task]) -> Result:
        for task in tasks:
            self.at(task.at, lambda task=task: self.submit(task))
        while self.events:
            self.now, _, event = heappop(self.events)
            event()
        return Result(self.now, sum(self.waits) / len(self.waits), self.changes)

    def at(self, time: float, event: Callable[[], None]) -> None:
        heappush(self.events, (time, next(self.ids), event))

    def submit(self, task: Task) -> None:
        number = float(next(self.ids))
        if self.place == "prompt":
            number = self.fairness.number(task.client, self.durations.expect(task.workflow, ""))
            Q = QUANTUM
            if Q:
                m = sorted(task.workflow.models)[0]
                self.models.setdefault(m, len(self.models))
                number = number // Q * Q + Q * self.models[m] / 1000
        job = Job(f"job{next(self.ids)}", task.client, task.workflow, number)
        self.tasks[job.prompt_id] = task
        if self.place == "round robin":
            target = self.loads[next(self.turn) % len(self.loads)]
        elif self.place == "fewest prompts":
            target = min(self.loads, key=len)
        elif self.place == "by client":
            target = self.loads[int(task.client[6:]) % len(self.loads)]
        else:
            target = choose(job, self.loads, self.durations, self.now)
        target.add(job)
        self.go_on(target)

    def go_on(self, load: Workload) -> None:
        if load.running is not None:
            return
        if not load.pending and self.place == "prompt":
            others = [other for other in self.loads if other is not load]
            found = take_over(load, others, self.durations, self.now)
            if found is not None:
                job, owner = found
                del owner.pending[job.prompt_id]
                load.add(job)
        if load.pending:
            job = min(load.pending.values(), key=lambda job: job.number)
            load.start(job.prompt_id, self.now)
            self.fairness.started(job.number)
            task = self.tasks[job.prompt_id]
            self.waits.append(self.now - task.at)
            cold = is_cold(job.workflow.models, load.warm)
            self.changes += cold
            self.at(self.now + task.seconds + cold * LOADING, lambda: self.done(load, job, task))

    def done(self, load: Workload, job: Job, task: Task) -> None:
        load.end(job.prompt_id)
        self.durations.learn(job.workflow, load.server, task.seconds)
        self.go_on(load)


import os

QUANTUM = float(os.environ.get("Q", 0))
PLACES = ("round robin", "fewest prompts", "by client", "prompt")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--servers", type=int, default=8)
    parser.add_argument("--jobs", type=int, default=400)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    rows = {}
    for spread in (0.0, 200.0):
        tasks = jobs(options.jobs, options.seed, spread=spread)
        least = bound(tasks, options.servers)
        rows[f"{spread:g}"] = {"bound": least} | {
            place: vars(Simulation(options.servers, place).run(tasks)) for place in PLACES
        }
        print(f"arriving within {spread:g} s: bound {least:.0f} s")
        for place in PLACES:
            found = rows[f"{spread:g}"][place]
            print(
                f"  {place:15} {found['makespan'] / least:6.2f} x the bound, mean wait {found['mean_wait']:7.1f} s, {found['loads']} loads"
            )


if __name__ == "__main__":
    main()
