"""A site with a page of its own, and a pool of ComfyUI servers behind /api and /ws.

python examples/embedded_site.py tcp:8080:interface=127.0.0.1 'http://gpu[1-4]:8188'
"""

import sys
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.task import react
from twisted.web.resource import Resource
from twisted.web.static import Data

from comfyproxy.web.resource import RoundRobinResource
from comfyproxy.web.streaming import StreamingSite


async def main(reactor: Any, listen: str, servers: str) -> None:
    """Serve on ``listen`` until the process is told to end."""
    pool = RoundRobinResource(servers, reactor=reactor, comfyui=True)
    reactor.addSystemEventTrigger("before", "shutdown", pool.stop)

    root = Resource()
    root.putChild(b"", Data(b"<h1>Our own page</h1>", "text/html"))
    for place in (b"api", b"ws"):
        root.putChild(place, pool)

    port = await serverFromString(reactor, listen).listen(StreamingSite(root))
    print(f"Serving on http://127.0.0.1:{port.getHost().port}/", flush=True)
    await Deferred()


if __name__ == "__main__":
    react(lambda reactor, *arguments: Deferred.fromCoroutine(main(reactor, *arguments)), sys.argv[1:])
