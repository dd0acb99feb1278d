"""Sockets in memory: what one end sees of the other. The rest shows in the tests of the network."""

from socket import MSG_PEEK

import pytest

from comfyproxy.testing.sockets import Direction, MemorySocket


@pytest.fixture
def ends() -> tuple[MemorySocket, MemorySocket]:
    """Two ends of a connection that has room for ten octets each way."""
    there, back = Direction(10), Direction(10)
    return MemorySocket(back, there), MemorySocket(there, back)


def test_what_one_sends_the_other_receives(ends):
    near, far = ends
    assert near.send(b"hello") == 5
    assert far.recv(3, MSG_PEEK) == b"hel"
    assert (far.recv(3), far.recv(9)) == (b"hel", b"lo")
    with pytest.raises(BlockingIOError):
        far.recv(1)


def test_it_takes_no_more_than_there_is_room_for(ends):
    near, far = ends
    assert near.send(b"x" * 15) == 10
    assert not near.is_writable
    with pytest.raises(BlockingIOError):
        near.send(b"x")
    far.recv(4)
    assert near.send(b"x" * 15) == 4


def test_an_end_comes_after_what_was_sent(ends):
    near, far = ends
    near.send(b"bye")
    near.shutdown(1)
    assert (far.recv(9), far.recv(9)) == (b"bye", b"")


def test_who_closes_with_octets_unread_resets_the_other(ends):
    near, far = ends
    near.send(b"unread")
    far.close()
    with pytest.raises(ConnectionResetError):
        near.recv(1)
    with pytest.raises(BrokenPipeError):
        near.send(b"x")
