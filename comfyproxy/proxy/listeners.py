"""Accepts connections, each with the protocol it speaks."""

from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Factory

from comfyproxy.proxy.downstream import Downstream
from comfyproxy.proxy.proxy import Proxy


class HTTPListener(Factory):
    """Accepts HTTP/1.1 clients; listen with it on any Twisted server endpoint."""

    noisy = False

    def __init__(self, proxy: Proxy) -> None:
        self._proxy = proxy

    def buildProtocol(self, addr: IAddress | None) -> Downstream:
        return Downstream(self._proxy)
