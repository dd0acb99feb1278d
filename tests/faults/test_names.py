"""Name servers that lie, fail and fall silent: no liar is believed, and what was known is kept."""

import select
import socket
import struct
from collections.abc import Callable, Iterator
from itertools import count

import pytest
from fault_rig.daemon import Daemon, StartDaemon, options_of
from fault_rig.peers import PATIENCE, Connection, Server, StartServer

GET = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nConnection: close\r\n\r\nfine"
HERE, EVIL = "127.0.0.1", "127.0.0.2"
A = 1
NO_ERROR, SERVER_FAILURE, NO_SUCH_NAME = 0x8180, 0x8182, 0x8183
NAMES = (f"server-{number}.test" for number in count())


class Query:
    """One question that came."""

    def __init__(self, octets: bytes, asker: tuple[str, int]) -> None:
        self.octets = octets
        self.asker = asker
        self.number = octets[:2]
        end = octets.index(b"\0", 12) + 5
        self.question = octets[12:end]
        self.kind = struct.unpack("!H", octets[end - 4 : end - 2])[0]

    def answer(
        self, *records: bytes, code: int = NO_ERROR, number: bytes = b"", question: bytes = b""
    ) -> bytes:
        """An answer to it, if nothing else is given."""
        counts = struct.pack("!HHHHH", code, 1, len(records), 0, 0)
        return (number or self.number) + counts + (question or self.question) + b"".join(records)

    def truth(self) -> bytes:
        """The server's address, or that it has none of the other family."""
        return self.answer(*([record(HERE)] if self.kind == A else []))


def record(address: str, name: bytes = b"\xc0\x0c") -> bytes:
    """An A record for the name that was asked for, or another, with a TTL of 0."""
    return name + struct.pack("!HHIH", 1, 1, 0, 4) + socket.inet_aton(address)


def alias(target: bytes, name: bytes = b"\xc0\x0c") -> bytes:
    """A CNAME record."""
    return name + struct.pack("!HHIH", 5, 1, 0, len(target)) + target


OTHER_NAME = b"\x04evil\x04test\x00"

LIES: dict[str, Callable[[Query], bytes]] = {
    "another number": lambda query: query.answer(
        record(EVIL), number=bytes((query.number[0] ^ 1, query.number[1]))
    ),
    "another question": lambda query: query.answer(record(EVIL), question=OTHER_NAME + b"\0\1\0\1"),
    "nothing": lambda query: b"",
    "half a header": lambda query: query.number + b"\x81",
    "the question itself": lambda query: query.octets,
    "noise": lambda query: bytes(range(256)),
    "an address of another name": lambda query: query.answer(record(EVIL, OTHER_NAME), record(HERE)),
    "an alias of itself": lambda query: query.answer(alias(b"\xc0\x0c")),
    "a pointer to itself": lambda query: query.answer(record(EVIL, b"\xc0" + bytes([len(query.octets)]))),
    "a record cut short": lambda query: query.answer(record(EVIL))[:-2],
    "more records than there are": lambda query: query.answer(record(HERE)).replace(
        b"\0\1\0\1\0\0\0\0", b"\0\1\xff\xff\0\0\0\0", 1
    ),
    "the address of everybody": lambda query: query.answer(record("0.0.0.0")),
    "a failure": lambda query: query.answer(code=SERVER_FAILURE),
    "that there is no such name": lambda query: query.answer(code=NO_SUCH_NAME),
}


class NameServer:
    """A name server in the test's hands."""

    def __init__(self) -> None:
        self._socket = socket.socket(type=socket.SOCK_DGRAM)
        self._socket.bind((HERE, 0))
        self._liar = socket.socket(type=socket.SOCK_DGRAM)
        self._liar.bind((EVIL, 0))
        self.address = f"{HERE}:{self._socket.getsockname()[1]}"

    def answer_until(self, server: Server, answer: Callable[[Query], list[bytes]]) -> bool:
        """Answer what is asked until ``server`` is connected to; ``False`` if that takes too long."""
        while True:
            ready = select.select([self._socket, server], [], [], PATIENCE)[0]
            if server in ready or not ready:
                return bool(ready)
            self.answer_one(answer)

    def answer_one(self, answer: Callable[[Query], list[bytes]]) -> None:
        """Answer one question."""
        query = Query(*self._socket.recvfrom(4096))
        for octets in answer(query):
            self._socket.sendto(octets, query.asker)

    def spoof(self, query: Query) -> list[bytes]:
        """Answer from another address, and then as one should."""
        self._liar.sendto(query.answer(record(EVIL)), query.asker)
        return [query.truth()]

    def close(self) -> None:
        """Be gone."""
        self._socket.close()
        self._liar.close()

    def fileno(self) -> int:
        """For `select`."""
        return self._socket.fileno()


@pytest.fixture
def name_server() -> Iterator[NameServer]:
    server = NameServer()
    yield server
    server.close()


@pytest.fixture
def evil(start_server: StartServer) -> Iterator[tuple[Server, socket.socket]]:
    """A server, and one of a liar's on the same port of another address."""
    server = start_server()
    with socket.socket() as bad:
        bad.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bad.bind((EVIL, server.port))
        bad.listen()
        yield server, bad


def served(client: Connection, server: Server) -> None:
    """Answer, and see that it arrives."""
    with server.accept() as backend:
        backend.read_head()
        backend.send(OK)
        assert client.answer().body == b"fine"
        backend.read_rest()


def daemon_for(start_daemon: StartDaemon, name_server: NameServer, server: Server) -> Daemon:
    """A daemon that knows the server by a new name, and asks for it for each connection."""
    options = options_of([f"http://{next(NAMES)}:{server.port}"])
    return start_daemon(*options, "--name-server", name_server.address, "--resolve-interval", "0")


def test_whatever_a_name_server_says_no_liar_is_believed_and_what_was_known_is_kept(
    start_daemon: StartDaemon, name_server: NameServer, evil: tuple[Server, socket.socket]
) -> None:
    server, bad = evil
    daemon = daemon_for(start_daemon, name_server, server)
    truth = lambda query: [query.truth()]  # noqa: E731
    with daemon.ask(GET) as client:
        assert name_server.answer_until(server, truth)
        served(client, server)
    for lie in LIES.values():
        with daemon.ask(GET) as client:
            assert name_server.answer_until(server, lambda query, lie=lie: [lie(query), query.truth()])
            served(client, server)
    with daemon.ask(GET) as client:
        assert name_server.answer_until(server, name_server.spoof)
        served(client, server)
    assert not select.select([bad], [], [], 0)[0], "a liar was believed"


def test_a_name_server_that_fails_or_is_silent_costs_a_second_and_is_told_once(
    start_daemon: StartDaemon, name_server: NameServer, start_server: StartServer
) -> None:
    server = start_server()
    daemon = daemon_for(start_daemon, name_server, server)
    with daemon.ask(GET) as client:
        assert name_server.answer_until(server, lambda query: [query.truth()])
        served(client, server)
    for _ in range(3):
        with daemon.ask(GET) as client:
            assert name_server.answer_until(server, lambda query: [query.answer(code=SERVER_FAILURE)])
            served(client, server)
    with daemon.ask(GET) as client:
        assert name_server.answer_until(server, lambda query: [])
        served(client, server)
    assert daemon.log.count("cannot be resolved now; its last addresses are used: 127.0.0.1") == 1
    with daemon.ask(GET) as client:
        assert name_server.answer_until(server, lambda query: [query.truth()])
        served(client, server)


def test_a_name_that_was_never_known_is_a_503_and_asked_for_again(
    start_daemon: StartDaemon, name_server: NameServer, start_server: StartServer
) -> None:
    server = start_server()
    daemon = daemon_for(start_daemon, name_server, server)
    for code in (NO_SUCH_NAME, SERVER_FAILURE, NO_SUCH_NAME):
        with daemon.ask(GET) as client:
            while client not in (ready := select.select([name_server, client], [], [], PATIENCE)[0]):
                assert ready
                name_server.answer_one(lambda query, code=code: [query.answer(code=code)])
            assert client.answer().status == 503
    with daemon.ask(GET) as client:
        assert name_server.answer_until(server, lambda query: [query.truth()])
        served(client, server)
