"""Runs the command `comfyproxy` in this process unchanged, and tells on a socket what is alive in it.

    python watched.py DESCRIPTOR run --url ...

The daemon knows nothing of it: a thread waits on the socket and asks in the reactor's own thread, between two
of its turns, what the garbage collector tracks. Each line that comes is answered by one line of JSON.
"""

import gc
import json
import os
import queue
import socket
import sys
import threading
from collections import Counter
from typing import Any

from comfyproxy import cli
from comfyproxy.core.balancing.backend import Backend

CACHED = ("RequestHead", "ResponseHead", "FieldBlock", "Forwarder", "Claims", "Sender")
"""Values that bounded caches keep: heads that came before are not read again."""


def main() -> None:
    """Answer on the descriptor that the first argument names, and be `comfyproxy` with the others."""
    control = socket.socket(fileno=int(sys.argv[1]))
    threading.Thread(target=_answer, args=(control,), daemon=True).start()
    sys.exit(cli.main(sys.argv[2:]))


def _answer(control: socket.socket) -> None:
    lines = control.makefile("rb")
    for _ in lines:
        # Imported here, long after the command has installed the reactor that it wants.
        from twisted.internet import reactor

        answers: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        reactor.callFromThread(lambda reactor=reactor, answers=answers: answers.put(_try_census(reactor)))
        control.sendall(json.dumps(answers.get()).encode() + b"\n")
    # The tests are gone, whatever became of them.
    os._exit(1)


def _try_census(reactor: Any) -> dict[str, Any]:
    try:
        return census(reactor)
    except Exception as error:
        return {"error": repr(error)}


def census(reactor: Any) -> dict[str, Any]:
    """Every object of the package by its class, leases held, timers, what is watched, blocks of memory.

    ``spare`` are the descriptors of empty pipes that are kept for the next long body: a bounded number.
    """
    gc.collect()
    alive = gc.get_objects()
    kinds = Counter(map(type, alive))
    objects = {
        kind.__qualname__: count
        for kind, count in kinds.items()
        if str(kind.__module__).startswith("comfyproxy.") and kind.__qualname__ not in CACHED
    }
    splice = sys.modules.get("comfyproxy.proxy.splice")
    return {
        "spare": 2 * len(getattr(splice, "_spare", ())),
        "objects": objects,
        "leases": sum(one.leases for one in alive if type(one) is Backend),
        "timers": Counter(_name(call.func) for call in reactor.getDelayedCalls()),
        "watched": Counter(type(one).__qualname__ for one in [*reactor.getReaders(), *reactor.getWriters()]),
        "blocks": sys.getallocatedblocks(),
    }


def _name(function: Any) -> str:
    return getattr(function, "__qualname__", None) or repr(function)


if __name__ == "__main__":
    main()
