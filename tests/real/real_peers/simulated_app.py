"""The project's own simulated ComfyUI for tests/real: `python simulated_app.py PORT NAME [OPTIONS]`."""

import argparse

from twisted.internet import reactor

from comfyproxy.demo.nodes import NODES
from comfyproxy.demo.server import SimulatedComfyUI


def main() -> None:
    """Serve until the process is ended."""
    parser = argparse.ArgumentParser()
    parser.add_argument("port", type=int)
    parser.add_argument("name")
    parser.add_argument("--no-jobs-api", action="store_true", help="without /api/jobs, as before ComfyUI 0.6")
    parser.add_argument("--without", action="append", default=[], metavar="CLASS", help="a node it lacks")
    asked = parser.parse_args()
    nodes = {name: node for name, node in NODES.items() if name not in asked.without}
    server = SimulatedComfyUI(asked.name, reactor, jobs_api=not asked.no_jobs_api, nodes=nodes)
    server.listen(asked.port)
    reactor.run()


if __name__ == "__main__":
    main()
