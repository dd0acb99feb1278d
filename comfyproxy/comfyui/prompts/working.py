"""What is to be done about the prompts of a pool beside requests: asking servers, giving them up, moving."""

from collections.abc import Iterator

from comfyproxy.comfyui.prompts.dispatch import Dispatch
from comfyproxy.comfyui.prompts.losing import give_up
from comfyproxy.comfyui.prompts.moving import plan_moves, resubmit
from comfyproxy.comfyui.prompts.reconciling import reconcile
from comfyproxy.core.balancing.operations import Operation


def work(dispatch: Dispatch, now: float) -> Iterator[Operation]:
    """The operations to begin now."""
    yield from settle(dispatch, now)
    yield from _read_catalogs(dispatch, now)
    yield from plan_moves(dispatch)


def settle(dispatch: Dispatch, now: float) -> Iterator[Operation]:
    """Of them those that keep every prompt on a server: what a proxy that stops must go on with."""
    dispatch.now = now
    dispatch.look_after_sessions(now)
    dispatch.forget_removed()
    for server in tuple(dispatch.servers.values()):
        if server.is_lost(now):
            give_up(dispatch, server.backend)
        elif server.is_due(now):
            yield reconcile(dispatch, server.backend)
    for prompt_id, due in tuple(dispatch.stranded.items()):
        prompt = dispatch.ledger.get(prompt_id)
        if prompt is None:
            del dispatch.stranded[prompt_id]
        elif due <= now:
            yield resubmit(dispatch, prompt)


def _read_catalogs(dispatch: Dispatch, now: float) -> Iterator[Operation]:
    """Learn what a server can run as soon as it is there: the first prompt need not wait for it."""
    connected = (server.backend for server in dispatch.servers.values() if server.is_connected)
    for backend in dispatch.catalogs.due(connected, now)[:1]:
        yield dispatch.catalogs.fetch([backend], now)
