"""PORT [--deflate]: an echo server of autobahn, whose own conformance is what proxies are held against."""

import sys
from typing import Any

from autobahn.twisted.websocket import WebSocketServerFactory, WebSocketServerProtocol
from autobahn.websocket.compress import PerMessageDeflateOffer, PerMessageDeflateOfferAccept


class Echo(WebSocketServerProtocol):
    """Sends back what it gets."""

    def onMessage(self, payload: bytes, isBinary: bool) -> None:
        """As `WebSocketServerProtocol.onMessage`."""
        self.sendMessage(payload, isBinary)


def accept(offers: list[Any]) -> Any:
    """Accept the first offer of permessage-deflate."""
    for offer in offers:
        if isinstance(offer, PerMessageDeflateOffer):
            return PerMessageDeflateOfferAccept(offer)
    return None


def main(arguments: list[str]) -> None:
    """Serve until the process is ended."""
    from twisted.internet import reactor

    factory = WebSocketServerFactory()
    factory.protocol = Echo
    # Not a reset where the protocol was broken: a Close frame says why, and the suite wants to read it.
    factory.setProtocolOptions(failByDrop=False)
    if "--deflate" in arguments:
        factory.setProtocolOptions(perMessageCompressionAccept=accept)
    listening: Any = reactor
    listening.listenTCP(int(arguments[0]), factory, interface="127.0.0.1", backlog=500)
    listening.run()


if __name__ == "__main__":
    main(sys.argv[1:])
