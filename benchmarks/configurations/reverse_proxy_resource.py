"""PORT HOST:PORT...: round robin over Twisted's own ReverseProxyResource, the usual twenty lines."""

import sys
from itertools import cycle
from typing import Any

from twisted.internet import reactor
from twisted.web.proxy import ReverseProxyResource
from twisted.web.resource import Resource
from twisted.web.server import Site


class RoundRobin(Resource):
    """Each request goes to the next server."""

    isLeaf = True

    def __init__(self, servers: list[str]) -> None:
        super().__init__()
        self._turns = cycle(servers)

    def render(self, request: Any) -> Any:
        """Relay ``request``."""
        host, _, port = next(self._turns).rpartition(":")
        return ReverseProxyResource(host, int(port), request.path).render(request)


reactor.listenTCP(int(sys.argv[1]), Site(RoundRobin(sys.argv[2:])), backlog=4096, interface="127.0.0.1")
reactor.run()
