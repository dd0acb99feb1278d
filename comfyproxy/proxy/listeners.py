"""Accepts connections, each with the protocol it speaks."""

from twisted.internet.interfaces import IAddress, IProtocolNegotiationFactory
from twisted.internet.protocol import Factory
from zope.interface import implementer

from comfyproxy.proxy.downstream import Downstream
from comfyproxy.proxy.proxy import Proxy


@implementer(IProtocolNegotiationFactory)
class HTTPListener(Factory):
    """Accepts HTTP/1.1 clients; listen with it on any Twisted server endpoint."""

    noisy = False

    def __init__(self, proxy: Proxy) -> None:
        self._proxy = proxy

    def buildProtocol(self, addr: IAddress | None) -> Downstream:
        return Downstream(self._proxy)

    def acceptableProtocols(self) -> list[bytes]:
        """What clients over TLS may ask for by ALPN (RFC 7301); most browsers ask."""
        return [b"http/1.1"]
