"""Messages as the kindest reader takes them: whatever a proxy passes on must be recognised."""

from dataclasses import dataclass, field

Lines = list[tuple[bytes, bytes]]


@dataclass
class Message:
    """A request or an answer; names are in lower case, ``lines`` has them as they came."""

    start: bytes
    lines: Lines
    body: bytes = b""
    trailers: Lines = field(default_factory=list)
    complete: bool = False

    @property
    def status(self) -> int:
        """Of an answer; 0 if it has none."""
        words = self.start.split(b" ")
        return int(words[1]) if len(words) > 1 and words[1].isdigit() else 0

    @property
    def target(self) -> bytes:
        """Of a request."""
        return [*self.start.split(b" "), b""][1]

    @property
    def has_length(self) -> bool:
        """Whether its body is framed by a length."""
        return bool(self.values(b"content-length"))

    @property
    def is_chunked(self) -> bool:
        """Whether its body is in chunks."""
        return any(b"chunked" in value.lower() for value in self.values(b"transfer-encoding"))

    def values(self, name: bytes) -> list[bytes]:
        """The values of all fields of a lower-case name."""
        return [value for key, value in self.lines if key.lower() == name]

    def value(self, name: bytes) -> bytes | None:
        """Those values in one, or ``None``."""
        values = self.values(name)
        return b", ".join(values) if values else None


def read_request(data: bytes) -> tuple[Message | None, bytes]:
    """The first request in ``data`` and what stands behind it; ``None`` as long as its head is not there."""
    message, rest = _read_head(data.lstrip(b"\r\n"))
    if message is None:
        return None, data
    if message.is_chunked or message.has_length:
        return message, _read_body(message, rest, closed=False)
    message.complete = True
    return message, rest


def read_answer(data: bytes, method: str, closed: bool) -> tuple[Message | None, bytes]:
    """The same for an answer to ``method``; ``closed`` says that nothing more will come."""
    message, rest = _read_head(data)
    if message is None:
        return None, data
    if method == "HEAD" or message.status < 200 or message.status in (204, 304):
        message.complete = True
        return message, rest
    return message, _read_body(message, rest, closed)


def _read_head(data: bytes) -> tuple[Message | None, bytes]:
    head, end, rest = data.partition(b"\r\n\r\n")
    if not end:
        return None, data
    start, *lines = head.split(b"\r\n")
    pairs = [line.partition(b":")[::2] for line in lines]
    return Message(start, [(name.strip(), value.strip()) for name, value in pairs]), rest


def _read_body(message: Message, rest: bytes, closed: bool) -> bytes:
    if message.is_chunked:
        return _read_chunks(message, rest)
    if message.has_length:
        digits = message.values(b"content-length")[-1]
        size = int(digits) if digits.isdigit() else 0
        message.body = rest[:size]
        message.complete = len(rest) >= size
        return rest[size:]
    message.body = rest
    message.complete = closed
    return b""


def _read_chunks(message: Message, rest: bytes) -> bytes:
    while True:
        line, end, behind = rest.partition(b"\r\n")
        try:
            size = int(line.partition(b";")[0].strip(), 16)
        except ValueError:
            return rest
        if not end or len(behind) < size + 2:
            return rest
        if not size:
            break
        message.body += behind[:size]
        rest = behind[size + 2 :]
    while behind:
        line, end, behind = behind.partition(b"\r\n")
        if not end:
            return behind
        if not line:
            message.complete = True
            return behind
        name, _, value = line.partition(b":")
        message.trailers.append((name, value.strip()))
    return behind
