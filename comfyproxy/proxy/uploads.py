"""The body of a request while it comes: counted or in chunks, timed, handed on to the exchange."""

from math import inf
from typing import TYPE_CHECKING

from comfyproxy.core.http.chunked import CHUNKED, ChunkedReader
from comfyproxy.errors import ProtocolError
from comfyproxy.proxy.exchange import Exchange
from comfyproxy.proxy.pace import Pace
from comfyproxy.proxy.splice import WORTHWHILE, Splice, can_splice

if TYPE_CHECKING:
    from comfyproxy.proxy.downstream import Downstream


class Upload:
    """What is still to come of the request of ``exchange``: ``left`` octets, or `CHUNKED`.

    The client has the route's body timeout for each piece, and its least rate to keep; not while the backend
    is the one that is slow. It tells ``client`` when the body is complete.
    """

    def __init__(self, client: "Downstream", exchange: Exchange, left: int) -> None:
        self._client = client
        self._exchange = exchange
        self._deadlines = exchange.proxy.deadlines
        self._size = self._left = left
        # Framed until it is known that a router wants to see the payload.
        self._chunks = ChunkedReader(framed=True) if left == CHUNKED else None
        self._splice: Splice | None = None
        self._paused = False
        self._stopped = False
        self._limit = 0
        self._timeout = 0.0
        self._pace: Pace | None = None
        self.deadline = self.slot = inf

    @property
    def is_spliced(self) -> bool:
        """Whether the kernel moves it; then nobody else may read."""
        return self._splice is not None

    def start(self) -> None:
        """The exchange has begun, and has its route: let the time run that the client has."""
        exchange = self._exchange
        assert exchange.route is not None
        if self._chunks is not None and exchange.gathers_body:
            self._chunks = ChunkedReader(framed=False)
        self._limit = exchange.max_body
        self._timeout = exchange.route.timeouts.body
        if exchange.min_rate and self._timeout:
            self._pace = Pace(
                self._deadlines, exchange.min_rate, self._timeout, self._moved, self._came_too_slowly
            )
        if not self._paused:
            self.resume()

    def feed(self, data: bytes) -> None:
        """Take more of it; what is behind its end, the client's connection holds."""
        if self._chunks is not None:
            self._feed_chunks(self._chunks, data)
            return
        if len(data) > self._left:
            self._client.hold(data[self._left :])
            data = data[: self._left]
        self._progress(len(data))
        self._exchange.body(data, not self._left)
        if self._left >= WORTHWHILE and not self._stopped:
            self._try_splice()

    def _feed_chunks(self, chunks: ChunkedReader, data: bytes) -> None:
        try:
            passed = chunks.feed(data)
        except ProtocolError as error:
            self._client.upload_failed(error.status, str(error))
            return
        if 0 < self._limit < chunks.payload:
            self._exchange.refuse_body(self._limit)
            return
        if chunks.complete:
            self._complete()
            if chunks.rest:
                self._client.hold(chunks.rest)
        else:
            self._deadlines.set(self, self._timeout)
        self._exchange.body(passed, chunks.complete)

    def _progress(self, count: int) -> None:
        self._left -= count
        if self._left:
            self._deadlines.set(self, self._timeout)
        else:
            self._complete()

    def _complete(self) -> None:
        self._forget_time()
        self._client.upload_complete()

    def _forget_time(self) -> None:
        self._deadlines.forget(self)
        if self._pace is not None:
            self._pace.stop()

    def _moved(self) -> int:
        return self._size - self._left if self._chunks is None else self._chunks.payload

    def _try_splice(self) -> None:
        """Let the kernel move the rest, if it can and nothing has to see it."""
        source, sink = self._client.transport, self._exchange.body_sink
        if sink is None or self._splice is not None or not can_splice(source, sink, self._left):
            return
        try:
            self._splice = Splice(source, sink, self._left, self._spliced, self._splice_ended)
        except OSError:
            # Out of descriptors: the copying way needs none.
            return

    def _spliced(self, count: int) -> None:
        self._progress(count)
        self._exchange.note_body_progress()

    def _splice_ended(self, left: int) -> None:
        self._splice = None
        if not left and not self._stopped:
            self._exchange.body(b"", True)

    def pause(self) -> None:
        """The client is not read for now, so it has all time."""
        self._paused = True
        self._deadlines.clear(self)
        if self._pace is not None:
            self._pace.pause()

    def resume(self) -> None:
        """The client is read again."""
        self._paused = False
        self._deadlines.set(self, self._timeout)
        if self._pace is not None:
            self._pace.start()

    def stop(self) -> None:
        """Nobody wants the rest."""
        self._stopped = True
        self._forget_time()
        splice, self._splice = self._splice, None
        if splice is not None:
            splice.stop()

    def deadline_passed(self) -> None:
        """No piece came in time."""
        self._came_too_slowly()

    def _came_too_slowly(self) -> None:
        if self._splice is not None and self._splice.waits_for_sink:
            # It is the backend that is slow, which has a time of its own.
            self.resume()
        else:
            self._client.upload_too_slow()
