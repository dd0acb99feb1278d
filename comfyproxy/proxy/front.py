"""The client's side of an exchange, as the exchange sees it."""

from typing import Any, Protocol

from comfyproxy.core.http.answers import Answer
from comfyproxy.proxy.relay import RelayEnd, Transport


class Front(Protocol):
    """The client's side of an exchange. ``fields`` are whole field lines, each with its CRLF."""

    peer: str
    """The client's address."""

    takes_chunks: bool
    """Whether bodies of unknown length are written in chunks; else they come decoded and end with
    `finish`."""

    @property
    def ends(self) -> tuple[Any, Any]:
        """The addresses of the client and of ourselves, as Twisted has them."""

    @property
    def body_sink(self) -> Transport | None:
        """The transport that takes a body of known length as it is, if this front has one."""

    @property
    def watches_reading(self) -> bool:
        """Whether this front itself ends an answer that its client takes too slowly."""

    def sink_taken(self) -> None:
        """Octets go to `body_sink` from now on, and not through here."""

    def informational(self, status: int, reason: bytes, fields: bytes) -> None:
        """Pass a 1xx on, if this client may have it."""

    def begin(self, status: int, reason: bytes, fields: bytes, data: bytes, delimited: bool) -> None:
        """Send the head and the first octets; without ``delimited`` only the connection's end ends the
        body."""

    def write(self, data: bytes) -> None:
        """Send more of the body, as it is to appear on the wire."""

    def finish(self) -> None:
        """The answer is complete."""

    def abort(self) -> None:
        """The answer will never be complete, and the client must be able to tell."""

    def answer(self, answer: Answer) -> None:
        """Send an answer of the proxy's own, and finish."""

    def pause_body(self) -> None:
        """Let no more of the request's body come."""

    def resume_body(self) -> None:
        """Let the request's body come again."""

    def tunnel(self, fields: bytes) -> tuple[RelayEnd, bytes]:
        """Send ``101 Switching Protocols`` with ``fields``, and `give_away` the connection."""

    def give_away(self) -> tuple[RelayEnd, bytes]:
        """Leave the connection, and what the client sent behind its request, to the caller."""
