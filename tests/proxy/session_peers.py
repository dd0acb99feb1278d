"""A session that does what a test tells it, its router, its backends, and a proxy between."""

import json

from twisted.internet.protocol import ClientFactory

from comfyproxy.core.balancing.routing import Default, Join, Operate, Respond
from comfyproxy.testing import Rig
from tests.proxy.websocket_peers import Backend, Client

STATUS = json.dumps({"type": "status", "data": {"status": {}, "sid": "x"}})


class Session:
    """Wants what it is told to, and remembers everything."""

    def __init__(self, client_id="c1"):
        self.client_id = client_id
        self.wanted = []
        self.heard = []
        self.clients = []
        self.sends = {}
        self.greeted = set()
        self.over = False
        self.fails = False
        self.times_due = 0

    def attach(self, client, now):
        self.clients.append(client)

    def detach(self, client, now):
        self.clients.remove(client)

    def from_client(self, client, payload, is_binary, now):
        self.heard.append(payload)
        if self.fails:
            raise ZeroDivisionError

    def opened(self, backend, send, now):
        self.sends[backend] = send
        self.heard.append(f"opened {backend.index}")

    def from_backend(self, backend, payload, is_binary, now):
        self.heard.append((backend.index, payload, is_binary))
        self.greeted.add(backend)

    def lost(self, backend, why, now):
        self.greeted.discard(backend)
        self.heard.append(f"lost {backend.index}")

    def is_greeted(self, backend):
        return backend in self.greeted

    def due(self, now):
        self.times_due += 1

    def is_over(self, now):
        return self.over


class Router:
    """Gives every WebSocket to its session, and takes an operation at ``/operate``."""

    drop = frozenset()

    def __init__(self, *sessions):
        self.sessions = list(sessions)
        self.operation = None
        self.wake = None
        self.in_hand = 0

    def route(self, head, body, now):
        if head.path == b"/operate":
            return Operate(self.operation())
        return Join(self.sessions[0], b"X-Own: 1\r\n") if head.path == b"/ws" else Default()

    def settle(self, now):
        return ()

    def place(self, head, body, backend, now):
        return None

    def cookies(self, value):
        return value

    def message_key(self, payload, is_binary):
        raise AssertionError

    def learn(self, answer, body, backend, now):
        raise AssertionError

    def background(self, now):
        return ()


class Setting:
    """A session, its router, its backends, and a proxy between."""

    def __init__(self, *backends, **settings):
        self.backends = backends or (Backend(),)
        self.session = Session()
        self.router = Router(self.session)
        self.rig = Rig(*self.backends, router=self.router, comfyui=True, **settings)
        self.rig.proxy.background.follow([self.rig.balancer])
        self.peers = []

    @property
    def pool(self):
        return self.rig.pool.backends

    def client(self, **options):
        client = Client(**options)
        factory = ClientFactory.forProtocol(lambda: client)
        factory.noisy = False
        self.rig.network.connectTCP("127.0.0.1", 8080, factory)
        self.rig.network.run()
        self.peers.append(client)
        return client

    def want(self, *numbers):
        self.session.wanted = [self.pool[number] for number in numbers]
        self.rig.advance(0.5)

    def operate(self, *steps):
        """Begin an operation that takes ``steps``; returns what came of them as they come."""
        came = []

        def operation():
            for step in steps:
                came.append((yield step))
            return Respond(200, b"")

        self.router.operation = operation
        self.rig.ask(b"GET /operate HTTP/1.1\r\nHost: a\r\n\r\n")
        return came

    def close(self):
        for peer in self.peers:
            if not peer.is_gone:
                peer.close()
        self.session.over = True
        self.rig.advance(12)
        return self.rig.close()


def settings():
    """For a fixture: makes settings, of which no lease, connection or timer may be left at the end."""
    made = []

    def setting(*backends, **settings):
        made.append(Setting(*backends, **settings))
        return made[-1]

    yield setting
    assert [left for one in made for left in one.close()] == []
