"""PORT HOST:PORT...: comfyproxy's resource in a twisted.web site, on the reactor of `comfyproxy run`."""

import sys
from typing import Any

from comfyproxy.proxy.reactor import install

install()


def main(port: str, *servers: str) -> None:
    """Serve until the process is ended."""
    from twisted.internet import reactor
    from twisted.web.server import Site

    from comfyproxy.proxy.transports import with_eager_writes
    from comfyproxy.web.resource import RoundRobinResource

    eager: Any = with_eager_writes(reactor)
    site = Site(RoundRobinResource(",".join(f"http://{server}" for server in servers)))
    eager.listenTCP(int(port), site, backlog=4096, interface="127.0.0.1")
    eager.run()


main(*sys.argv[1:])
