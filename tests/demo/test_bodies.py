"""Whole bodies."""

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionLost
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.web.client import ResponseDone
from twisted.web.http import PotentialDataLoss

from comfyproxy.demo.bodies import BytesBody, read_body


class Response:
    """The part of a response that delivers its body."""

    def deliverBody(self, protocol: object) -> None:
        self.protocol = protocol


def outcome(reason: Exception) -> object:
    response, seen = Response(), []
    whole: Deferred[bytes] = read_body(response)  # type: ignore[arg-type]
    whole.addBoth(seen.append)
    for part in (b"one ", b"two"):
        response.protocol.dataReceived(part)  # type: ignore[attr-defined]
    response.protocol.connectionLost(Failure(reason))  # type: ignore[attr-defined]
    return seen[0]


@pytest.mark.parametrize("end", [ResponseDone(), PotentialDataLoss()])
def test_a_body_is_read_to_its_end(end: Exception) -> None:
    assert outcome(end) == b"one two"


def test_a_body_that_breaks_off_is_an_error() -> None:
    broken = outcome(ConnectionLost())
    assert isinstance(broken, Failure)
    assert broken.check(ConnectionLost)


def test_a_body_is_written_at_once() -> None:
    transport, done = StringTransport(), []
    body = BytesBody(b"body")
    body.startProducing(transport).addCallback(done.append)  # type: ignore[arg-type]
    assert (transport.value(), body.length, done) == (b"body", 4, [None])
