"""Requests and answers of the tests of the embedded fronts, in octets."""

GET = b"GET / HTTP/1.1\r\nHost: proxy.example\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nDate: then\r\n\r\nok"


def get(target: bytes, *lines: bytes, version: bytes = b"HTTP/1.1") -> bytes:
    """A GET of ``target`` with more field lines."""
    return b"\r\n".join((b"GET %b %b" % (target, version), b"Host: proxy.example", *lines, b"", b""))


def fields(data: bytes) -> list[bytes]:
    """The field lines of the first head in ``data``."""
    return data.partition(b"\r\n\r\n")[0].split(b"\r\n")[1:]


def line(data: bytes) -> bytes:
    """The first line of ``data``."""
    return data.partition(b"\r\n")[0]
