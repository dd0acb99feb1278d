"""The parts of a multipart/form-data body (RFC 7578), kept byte for byte."""

import re
from dataclasses import dataclass
from email.message import Message

_BOUNDARY = re.compile(
    r"""multipart/form-data\s*;.*?boundary=(?:"([^"]+)"|([^\s;]+))""", re.IGNORECASE | re.DOTALL
)


@dataclass(frozen=True, slots=True)
class Part:
    """One field of the form; ``filename`` is None for what is no file."""

    data: bytes
    filename: str | None = None


def parse_form(content_type: str, body: bytes) -> dict[str, Part]:
    """The fields by name; of a repeated name the first one counts. What is no form has no fields."""
    found = _BOUNDARY.match(content_type)
    if not found:
        return {}
    delimiter = b"\r\n--" + (found[1] or found[2]).encode()
    parts: dict[str, Part] = {}
    for section in (b"\r\n" + body).split(delimiter)[1:]:
        head, separator, data = section.partition(b"\r\n\r\n")
        if section.startswith(b"--"):
            break
        name, filename = _disposition(head)
        if separator and name is not None:
            parts.setdefault(name, Part(data, filename))
    return parts


def _disposition(head: bytes) -> tuple[str | None, str | None]:
    for line in head.decode("utf-8", "replace").split("\r\n"):
        name, _, value = line.partition(":")
        if name.strip().lower() == "content-disposition":
            message = Message()
            message["Content-Disposition"] = value.strip()
            filename = message.get_filename()
            return _text(message.get_param("name", header="Content-Disposition")), filename
    return None, None


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None
