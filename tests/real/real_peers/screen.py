"""What ComfyUI's page can make of a WebSocket's events: it shows one job at a time.

These are the rules of the page's execution store: `execution_start` makes a job the active one, an
`executing` of no node ends whichever is active, and progress is drawn for the active one whoever's it is.
Events of two jobs among each other would make one job's end look like the other's. A job may be shown while
another runs that was shown before; that one then has to be started again before more of it can be shown.
"""

import asyncio
import time
from typing import Any, NamedTuple

from real_peers.comfyui import ScriptClient
from real_peers.workflows import Workflow

_ENDS = {"execution_success", "execution_error", "execution_interrupted"}
_OF_A_JOB = {"execution_cached", "executing", "executed", "progress", "progress_state"}


class Screen:
    """Follows the events of one WebSocket; an event that would be misread is an AssertionError.

    A page (``is_page``: it has sent `feature_flags`) hears of each end once. A script may be told again, so
    that one which waits for its prompts in turn finds the end of each.
    """

    def __init__(self, *, is_page: bool = False) -> None:
        self.active: str | None = None
        self.greetings = 0
        self.queue_remaining = -1
        self.ended: dict[str, str] = {}
        self.pictures: dict[str, list[dict[str, str]]] = {}
        self.idle: list[str] = []
        self._is_page = is_page

    def see(self, event: dict[str, Any]) -> None:
        """Take in the next event."""
        kind, data = event["type"], event["data"]
        prompt_id = data.get("prompt_id")
        if kind == "status":
            self.greetings += "sid" in data
            self.queue_remaining = data["status"]["exec_info"]["queue_remaining"]
        elif kind == "execution_start":
            assert not (self._is_page and prompt_id in self.ended), f"{prompt_id} starts after its end"
            self.active = prompt_id
        elif kind in _ENDS:
            assert not (self._is_page and prompt_id in self.ended), f"{prompt_id} ends twice"
            assert self.ended.setdefault(prompt_id, kind) == kind
        elif kind in _OF_A_JOB and prompt_id is not None:
            assert prompt_id == self.active, f"{kind} of {prompt_id} while {self.active} is shown"
        if kind == "executed":
            pictures = self.pictures.setdefault(prompt_id, [])
            pictures += [one for one in data["output"].get("images", ()) if one not in pictures]
        if kind == "executing" and data["node"] is None:
            self.idle.append(prompt_id)
            self.active = None


async def watch(client: ScriptClient, screen: Screen, *prompt_ids: str) -> None:
    """Read events until each of these prompts has ended and the screen has become idle after it."""
    while not set(prompt_ids) <= set(screen.idle):
        screen.see(await client.next_event())


async def start(client: ScriptClient, screen: Screen, workflow: Workflow) -> str:
    """Queue a workflow and wait until it is shown; returns its prompt id."""
    prompt_id = await client.queue(workflow)
    while screen.active != prompt_id:
        screen.see(await client.next_event())
    return prompt_id


async def until_shown(client: ScriptClient, screen: Screen, prompt_id: str) -> None:
    """Read the events of a new WebSocket until it shows this job, which began before."""
    screen.active = None
    while screen.active != prompt_id:
        screen.see(await client.next_event())


class Queue(NamedTuple):
    """The prompts that run and those that wait, by their ids."""

    running: frozenset[str]
    waiting: frozenset[str]


async def until_running(client: ScriptClient, count: int) -> Queue:
    """Wait until so many prompts run, and return the queue of that moment.

    ``GET /queue`` has one row at most of what runs, as with one ComfyUI, and first of what waits the others.
    """
    deadline = time.monotonic() + 30
    while True:
        queue = await client.get("/queue")
        listed = [row[1] for row in queue["queue_running"] + queue["queue_pending"]]
        running = {row[1] for row in queue["queue_running"]}
        if count > 1:
            running = {job["id"] for job in (await client.get("/api/jobs?status=in_progress"))["jobs"]}
        if len(running) >= count and running <= set(listed):
            assert listed[: len(running)] == sorted(running, key=listed.index)
            return Queue(frozenset(running), frozenset(listed) - running)
        assert time.monotonic() < deadline, "servers stay idle while prompts wait"
        await asyncio.sleep(0.02)
