"""A pool of ComfyUI servers, real or simulated, behind the address under test."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from random import randrange
from typing import Any, Protocol

from comfyproxy.demo.picture import text_of
from real_peers.workflows import ENDLESS, Workflow, picture, sampled_picture, waiting_picture

PREFIX = "one"
"""The file name prefix of every `Pool.picture`: on each server they begin with `one_00001_.png`."""


class Server(Protocol):
    """What the tests need of a server, be it real or simulated."""

    process: Any

    @property
    def url(self) -> str: ...

    def kill(self) -> None: ...

    def restart(self) -> None: ...

    def released(self) -> AbstractContextManager[None]: ...

    def history(self, prompt_id: str) -> dict[str, Any]: ...


@contextmanager
def released(servers: Iterable[Server]) -> Iterator[None]:
    """End the waiting of all jobs of these servers, those that run and those that come."""
    with ExitStack() as stack:
        for server in servers:
            stack.enter_context(server.released())
        yield


_MARK = re.compile(r"server-[0-9a-f]{12}/?")


def without_marks(value: Any) -> Any:
    """Outputs as their server tells of them: a pool puts a mark before the subfolder, to tell names apart."""
    if isinstance(value, list):
        return [without_marks(item) for item in value]
    if not isinstance(value, dict):
        return value
    found = {key: without_marks(member) for key, member in value.items()}
    return found | {"subfolder": _MARK.sub("", found["subfolder"])} if "subfolder" in found else found


@dataclass(frozen=True)
class Pool:
    """Servers behind one address. ``singles`` are the pictures that one real ComfyUI makes, by colour."""

    url: str
    servers: Sequence[Server]
    singles: Mapping[int, bytes] | None = None

    @property
    def is_simulated(self) -> bool:
        """Whether the servers are the project's own."""
        return self.singles is None

    def picture(self, colour: int) -> Workflow:
        """A picture that `check` knows."""
        # What a simulated server has made before it does not make again; its pictures tell who made them.
        return picture(randrange(2**24) if self.is_simulated else colour, prefix=PREFIX)

    def long(self, seconds: float = 1.0, *, previews: bool = False) -> Workflow:
        """A workflow that takes this long, in short steps, and ends with a picture."""
        if self.is_simulated:
            return sampled_picture(prefix="long", seconds=seconds, steps=max(4, round(seconds * 10)))
        return waiting_picture(0, prefix="long", seconds=seconds, previews=previews)

    def endless(self) -> Workflow:
        """A workflow that runs until it is interrupted or `released`, or its server ended."""
        return self.long(ENDLESS)

    def released(self) -> AbstractContextManager[None]:
        """End the waiting of all jobs, those that run and those that come."""
        return released(self.servers)

    def check(self, prompt_id: str, colour: int, received: bytes) -> None:
        """Fail unless ``received`` is what a single ComfyUI makes of `picture`, by this prompt."""
        if self.singles is not None:
            assert received == self.singles[colour], f"another picture than a single ComfyUI's: {colour:06x}"
        else:
            said = text_of(received).get("prompt_id", received[:100])
            assert said == prompt_id, f"the picture of {said} for {prompt_id}"

    def owner(self, prompt_id: str) -> Server:
        """The one server that ran this prompt; fails unless it is exactly one."""
        owners = [server for server in self.servers if server.history(prompt_id)]
        assert len(owners) == 1, f"{len(owners)} servers have {prompt_id} in their history"
        return owners[0]
