"""The project's own simulated ComfyUI for tests/real: `python simulated_app.py PORT NAME [OPTIONS]`."""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from twisted.internet import reactor

from comfyproxy.demo.nodes import NODES, DemoSampler, Work, Workshop
from comfyproxy.demo.server import SimulatedComfyUI

RELEASED = Path("released")
"""While this is in the server's directory, its jobs come to their ends without waiting."""


class ReleasableSampler(DemoSampler):
    """The sampler of the demo, whose time can be cut short from outside."""

    @classmethod
    def run(cls, inputs: Mapping[str, Any], workshop: Workshop) -> Work:
        work = super().run(inputs, workshop)
        while True:
            try:
                step = next(work)
            except StopIteration as done:
                return done.value
            if not RELEASED.exists():
                yield step


def main() -> None:
    """Serve until the process is ended."""
    parser = argparse.ArgumentParser()
    parser.add_argument("port", type=int)
    parser.add_argument("name")
    parser.add_argument("--no-jobs-api", action="store_true", help="without /api/jobs, as before ComfyUI 0.6")
    parser.add_argument("--without", action="append", default=[], metavar="CLASS", help="a node it lacks")
    asked = parser.parse_args()
    known = {**NODES, DemoSampler.__name__: ReleasableSampler}
    nodes = {name: node for name, node in known.items() if name not in asked.without}
    server = SimulatedComfyUI(asked.name, reactor, jobs_api=not asked.no_jobs_api, nodes=nodes)
    server.listen(asked.port)
    reactor.run()


if __name__ == "__main__":
    main()
