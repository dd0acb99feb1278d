"""Public fakes for tests of what is built on comfyproxy: a network in memory, scripted backends, raw clients.

A test says what happens and when, and sees what real sockets would show, without opening any::

    network = MemoryNetwork()
    backend = ScriptedBackend([Step(send=b"HTTP/1.1 204 No Content\\r\\n\\r\\n")])
    network.listenTCP(8188, backend, interface="10.0.0.1")
    network.listenTCP(8080, site_under_test(reactor=network))
    client = network.connect(RawClient(), "127.0.0.1", 8080)
    client.send(b"GET / HTTP/1.1\\r\\nHost: here\\r\\n\\r\\n")
    network.run()
    assert client.received.startswith(b"HTTP/1.1 204")
"""

from comfyproxy.testing.network import MemoryConnection, MemoryNetwork
from comfyproxy.testing.peers import BackendConnection, Peer, RawClient, ScriptedBackend, Step
from comfyproxy.testing.rig import Rig

__all__ = [
    "BackendConnection",
    "MemoryConnection",
    "MemoryNetwork",
    "Peer",
    "RawClient",
    "Rig",
    "ScriptedBackend",
    "Step",
]
