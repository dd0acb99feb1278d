"""The rules of a proxy (RFC 9110, RFC 9112) beside the corpora: what is sent, and how what came is judged.

A rule's ``wanted`` is the word that comfyproxy must earn.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from conformance.anchors.backend import Script
from conformance.anchors.trials import Result

Judge = Callable[[Result], str]
HOST = b"Host: a.example\r\n"

WAITS = "waits"
"""The word for a proxy that says nothing."""


@dataclass(frozen=True)
class Rule:
    """One row: ``sent`` by a client, ``script`` of the server, ``judge`` of what came of it."""

    name: str
    section: str
    sent: bytes
    judge: Judge
    wanted: str
    script: Script = field(default_factory=Script)
    method: str = "GET"


def get(fields: bytes = b"", target: bytes = b"/", host: bytes = HOST, version: bytes = b"1.1") -> bytes:
    """A GET."""
    return b"GET %b HTTP/%b\r\n%b%b\r\n" % (target, version, host, fields)


def told(result: Result) -> str:
    """What the client was told, of a request that did not arrive."""
    if result.final is not None:
        return str(result.final.status)
    return "closed" if result.closed else WAITS


def request_field(name: bytes, sent: bytes | None = None) -> Judge:
    """What became of a field that the client sent: ``dropped``, ``passed`` or the value that replaced it."""

    def judge(result: Result) -> str:
        if result.arrived is None:
            return told(result)
        value = result.arrived.value(name)
        if value is None:
            return "dropped"
        return "passed" if sent is None or value == sent else _in_words(value, sent)

    return judge


def _in_words(value: bytes, sent: bytes) -> str:
    if sent in value:
        return "added to"
    return "replaced"


def answer_field(name: bytes) -> Judge:
    """Whether a field of the server's answer reached the client."""

    def judge(result: Result) -> str:
        final = result.final
        if final is None or final.status != 200:
            return told(result)
        return "passed" if final.value(name) is not None else "dropped"

    return judge


def is_added(name: bytes, to_answer: bool = False) -> Judge:
    """Whether the proxy adds a field."""

    def judge(result: Result) -> str:
        message = result.final if to_answer else result.arrived
        if message is None:
            return told(result)
        return "added" if message.value(name) is not None else "no"

    return judge


def target(result: Result) -> str:
    """The target that reached the server."""
    return told(result) if result.arrived is None else f"`{result.arrived.target.decode('latin-1')}`"


def arrives(result: Result) -> str:
    """Whether the request reached the server; else what the client was told."""
    return "passed" if result.arrived is not None else told(result)


def host(result: Result) -> str:
    """Whose host the server was told: that of the target, or that of the field."""
    if result.arrived is None:
        return told(result)
    words = {b"a.example": "the field's", b"b.example": "the target's"}
    return words.get(result.arrived.value(b"host") or b"", "its own")


def trailers(of_answer: bool) -> Judge:
    """Whether a trailer came through."""

    def judge(result: Result) -> str:
        message = result.final if of_answer else result.arrived
        if message is None:
            return told(result)
        return "passed" if any(name.lower() == b"x-sum" for name, _ in message.trailers) else "dropped"

    return judge


def informational(status: int) -> Judge:
    """Whether the client got a 1xx."""

    def judge(result: Result) -> str:
        if result.final is None or result.final.status != 200:
            return told(result)
        return "passed" if any(one.status == status for one in result.answers) else "dropped"

    return judge


def forwards(result: Result) -> str:
    """What became of Max-Forwards."""
    if result.arrived is None:
        return told(result)
    value = (result.arrived.value(b"max-forwards") or b"none").decode()
    return {"4": "one less", "5": "passed", "0": "passed"}.get(value, value)


def framing(result: Result) -> str:
    """How an answer without a length reaches a client of HTTP/1.0."""
    if result.final is None or result.final.body != b"hello":
        return "chunks" if result.final is not None and result.final.is_chunked else told(result)
    return "chunks" if result.final.is_chunked else "plain"


def order(result: Result) -> str:
    """Whether repeated fields reach the server apart and in their order."""
    if result.arrived is None:
        return told(result)
    values = result.arrived.values(b"x-m")
    return {(b"1", b"2"): "kept", (b"1, 2",): "joined", (b"1,2",): "joined"}.get(tuple(values), "changed")


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n"
TRAILER_REQUEST = (
    b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\nTE: trailers\r\nTrailer: X-Sum\r\n\r\n"
    b"5\r\nhello\r\n0\r\nX-Sum: 1\r\n\r\n"
)
OK_WITH = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n%b\r\nok"
NAMED = OK_WITH % b"Connection: close, X-Hop\r\nX-Hop: 1\r\n"
HOPS = OK_WITH % b"Connection: close\r\nKeep-Alive: timeout=1\r\nProxy-Connection: x\r\n"
UNLISTED = (
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
)
UPLOAD = b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 5\r\nExpect: %b\r\n\r\nhello"
HINTS = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"

CONNECTION, FORWARDED, PATHS, BODIES, OTHER = (
    "What belongs to one connection",
    "Who asked, and through whom",
    "Targets",
    "Trailers and 1xx",
    "Methods, versions and limits",
)

RULES = (
    Rule("a request field that `Connection` names", CONNECTION, get(b"Connection: X-Hop\r\nX-Hop: 1\r\n"),
         request_field(b"x-hop"), "dropped"),
    Rule("an answer's field that `Connection` names", CONNECTION, get(), answer_field(b"x-hop"), "dropped",
         Script(NAMED)),
    Rule("`Keep-Alive` of a request", CONNECTION, get(b"Keep-Alive: timeout=1\r\n"),
         request_field(b"keep-alive"), "dropped"),
    Rule("`Proxy-Connection` of a request", CONNECTION, get(b"Proxy-Connection: keep-alive\r\n"),
         request_field(b"proxy-connection"), "dropped"),
    Rule("`Proxy-Connection` of an answer", CONNECTION, get(), answer_field(b"proxy-connection"), "dropped",
         Script(HOPS)),
    Rule("`TE: gzip`", CONNECTION, get(b"Connection: TE\r\nTE: gzip\r\n"), request_field(b"te"), "dropped"),
    Rule("`Upgrade: h2c`", CONNECTION,
         get(b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n"),
         request_field(b"upgrade"), "dropped"),
    Rule("`Connection: Host`", CONNECTION, get(b"Connection: close, Host\r\n"), host, "the field's"),
    Rule("`Connection: X-Forwarded-For`", CONNECTION, get(b"Connection: close, X-Forwarded-For\r\n"),
         is_added(b"x-forwarded-for"), "added"),
    Rule("`X-Forwarded-For: 9.9.9.9` of anybody", FORWARDED, get(b"X-Forwarded-For: 9.9.9.9\r\n"),
         request_field(b"x-forwarded-for", b"9.9.9.9"), "replaced"),
    Rule("`X-Real-IP: 9.9.9.9` of anybody", FORWARDED, get(b"X-Real-IP: 9.9.9.9\r\n"),
         request_field(b"x-real-ip", b"9.9.9.9"), "replaced"),
    Rule("`X-Forwarded-Proto: https` of anybody", FORWARDED, get(b"X-Forwarded-Proto: https\r\n"),
         request_field(b"x-forwarded-proto", b"https"), "replaced"),
    Rule("`X_Forwarded_For: 9.9.9.9`", FORWARDED, get(b"X_Forwarded_For: 9.9.9.9\r\n"),
         request_field(b"x_forwarded_for"), "dropped"),
    Rule("`Forwarded: for=9.9.9.9` of anybody", FORWARDED, get(b"Forwarded: for=9.9.9.9\r\n"),
         request_field(b"forwarded", b"for=9.9.9.9"), "dropped"),
    Rule("`Via` to the server", FORWARDED, get(), is_added(b"via"), "added"),
    Rule("`X-Forwarded-For` to the server", FORWARDED, get(), is_added(b"x-forwarded-for"), "added"),
    Rule("repeated fields", FORWARDED, get(b"X-M: 1\r\nX-N: n\r\nX-M: 2\r\n"), order, "kept"),
    Rule("absolute form of another host", PATHS, get(target=b"http://b.example/x"), host, "the target's"),
    Rule("`/a/../b`", PATHS, get(target=b"/a/../b"), target, "`/a/../b`"),
    Rule("`/a/%2e%2e/b`", PATHS, get(target=b"/a/%2e%2e/b"), target, "`/a/%2e%2e/b`"),
    Rule("`//a//b`", PATHS, get(target=b"//a//b"), target, "`//a//b`"),
    Rule("`/a;b=1?c=%2F`", PATHS, get(target=b"/a;b=1?c=%2F"), target, "`/a;b=1?c=%2F`"),
    Rule("`/a#b`", PATHS, get(target=b"/a#b"), target, "400"),
    Rule("a request's trailer", BODIES, TRAILER_REQUEST, trailers(of_answer=False), "passed"),
    Rule("an answer's trailer", BODIES, get(b"TE: trailers\r\nConnection: TE\r\n"), trailers(of_answer=True),
         "passed", Script(CHUNKED + b"Trailer: X-Sum\r\n\r\n5\r\nhello\r\n0\r\nX-Sum: 1\r\n\r\n")),
    Rule("103 Early Hints", BODIES, get(), informational(103), "passed", Script(early=HINTS)),
    Rule("the server's 100", BODIES, UPLOAD % b"100-continue", informational(100), "passed",
         Script(early=CONTINUE)),
    Rule("`Expect: foo`", BODIES, UPLOAD % b"foo", arrives, "417"),
    Rule("chunks to a client of HTTP/1.0", BODIES, get(version=b"1.0"), framing, "plain", Script(UNLISTED)),
    Rule("`Max-Forwards: 0` of OPTIONS", OTHER, get(b"Max-Forwards: 0\r\n").replace(b"GET", b"OPTIONS"),
         forwards, "200"),
    Rule("`Max-Forwards: 5` of OPTIONS", OTHER, get(b"Max-Forwards: 5\r\n").replace(b"GET", b"OPTIONS"),
         forwards, "one less"),
    Rule("TRACE", OTHER, get().replace(b"GET", b"TRACE"), arrives, "405"),
    Rule("CONNECT", OTHER, b"CONNECT b.example:80 HTTP/1.1\r\nHost: b.example:80\r\n\r\n", arrives, "405"),
    Rule("`HTTP/2.0` in the request line", OTHER, get(version=b"2.0"), arrives, "505"),
    Rule("a field of 20,000 octets", OTHER, get(b"X-Long: " + b"x" * 20_000 + b"\r\n"), arrives, "passed"),
    Rule("a target of 20,000 octets", OTHER, get(target=b"/" + b"x" * 20_000), arrives, "414"),
    Rule("200 fields", OTHER, get(b"X-Many: 1\r\n" * 200), arrives, "431"),
)  # fmt: skip
