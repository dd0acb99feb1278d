"""Takes a connection away from its Site: after a 101 it speaks HTTP no more.

What twisted.web gives no public way to do is here and nowhere else, with what it relies on (seen in
Twisted 24.11 to 26.10; twisted.web's own `HTTPChannel._protocolUpgradeForWebsockets` and autobahn's
``WebSocketResource`` rely on the same or more):

- A request's ``channel`` is the HTTP/1.1 connection's `HTTPChannel`, and its ``transport`` what the
  connection runs on. Under TLS, or in another `ProtocolWrapper`, that is the wrapper, and whom it talks to
  is its ``wrappedProtocol``; else it is the socket, whose ``protocol`` it is. Both look it up for each read.
- While a request is handled, the channel keeps what comes behind it in the list ``_dataBuffer``, pauses the
  transport once that is more than 16 KiB, and has no timeout.
- The channel has registered itself as the transport's producer.
"""

from typing import Any

from twisted.internet.protocol import connectionDone
from twisted.protocols.policies import ProtocolWrapper
from twisted.python.failure import Failure

from comfyproxy.proxy.relay import RelayEnd


class SiteTunnel(RelayEnd):
    """A client's connection that was a Site's.

    When it is gone, whoever waits for the request's ``notifyFinish`` is told, as of any lost connection.
    """

    def __init__(self, request: Any) -> None:
        self._request = request

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        super().connectionLost(reason)
        self._request.connectionLost(reason)


def take_over(request: Any) -> tuple[SiteTunnel, bytes]:
    """Take the connection of ``request`` from its Site, with what the client sent behind the request.

    The transport may be paused, and has no producer. The Site's log gets its line now: later its file may
    be closed.
    """
    channel = request.channel
    transport = channel.transport
    held = b"".join(channel._dataBuffer)
    channel._dataBuffer = []
    transport.unregisterProducer()
    tunnel = SiteTunnel(request)
    if isinstance(transport, ProtocolWrapper):
        transport.wrappedProtocol = tunnel
    else:
        transport.protocol = tunnel
    tunnel.makeConnection(transport)
    request.setResponseCode(101)
    factory = getattr(channel, "factory", None)
    if factory is not None:
        factory.log(request)
    return tunnel, held
