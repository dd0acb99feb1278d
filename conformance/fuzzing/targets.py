"""The table of targets, each with the inputs that it starts from."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from twisted.names import dns

from comfyproxy.core.configuration.options import OPTIONS
from comfyproxy.core.http.proxyprotocol import SIGNATURE, V1, V2, End, crc32c, make_header, own_header
from conformance.corpora import REQUESTS, RESPONSES, ROOT, VECTORS, cases
from conformance.fuzzing import clients, configuration, connections, messages, proxies, servers
from conformance.fuzzing.servers import NAME

FOUND = VECTORS / "fuzzing"
"""Inputs that once failed a target, in a folder of its name; the tests run them for ever."""

MAX_SEED = 4096


@dataclass(frozen=True)
class Target:
    """One thing to fuzz: ``run`` fails by raising; ``words`` help the fuzzer to the grammar."""

    run: Callable[[bytes], None]
    seeds: Callable[[], Iterable[bytes]]
    words: tuple[str, ...] = ()

    @property
    def meaning(self) -> str:
        """What it says of itself, in one line."""
        return (self.run.__doc__ or "").strip().splitlines()[0]


def _requests() -> Iterable[bytes]:
    return (case.raw for case in cases(*REQUESTS))


def _answers() -> Iterable[bytes]:
    methods = {"GET": b"\0", "HEAD": b"\1", "POST": b"\2"}
    return (methods[case.method] + case.raw for case in cases(*RESPONSES))


def _chunked() -> Iterable[bytes]:
    messages = (case.raw for case in cases(*REQUESTS, *RESPONSES))
    return (raw.partition(b"\r\n\r\n")[2] for raw in messages if b"chunked" in raw.lower())


def _numbered(seeds: Callable[[], Iterable[bytes]], count: int) -> Callable[[], Iterable[bytes]]:
    """``seeds`` behind an octet that says how they arrive."""
    return lambda: (bytes([number % count]) + raw for number, raw in enumerate(seeds()))


def _texts(*texts: str) -> Callable[[], Iterable[bytes]]:
    return lambda: (text.encode() for text in texts)


VALUES = (
    "10/s,burst=20,by=cookie:a",
    "1.5m",
    "64K",
    "yes",
    "10.0.0.0/8",
    "200-399,404",
    "http:/x",
    "tcp:80",
    "50%",
)
RESOLV = ("nameserver 192.0.2.53\nsearch a b\noptions ndots:2 timeout:1\n127.0.0.1 localhost a # b\n::1 c\n",)
SERVERS = (
    "http://server1:8188, http://server2:8188; server3",
    "http://server[1-100]:8188",
    "http://gpu[01-20].example:[8188-8190]",
    "http://localhost[8188-8190]",
    "http://192.168.1[1-50]:8188",
    "http://[::1]:8188 weight=2 max_conns=8 name=gpu-a",
    "https://a\ntcp://b:5432\n# all\nhttp://c:1 name=x # one\n",
    "818[8-0]",
)
JSON = (
    '["http://a:1", "http://b[1-3]:2; http://c"]',
    '[{"url": "http://a:1", "weight": 2, "max_conns": 8, "name": "gpu-a"}, "b"]',
    "[]",
)
TOML = (
    'listen = "tcp:8080"\nurl = ["http://a:1", "http://b:[1-3]"]\n[timeouts]\nidle = "5m"\n',
    '[pools.gpu]\nfile = "a.txt"\n[[routes]]\nprefix = "/"\npool = "gpu"\ntimeouts = { response = "2h" }\n',
    'x = """\na""" # b\ny = [1,\n2]\n',
)
DOTENV = ("DEV_SERVER_COMFYUI_URL=http://a:1 # one\n", "export A='b\nc'\nD: \"\\n\"\nE=`f`\n")
COOKIES = ("a=b; comfyproxy=0123; c=d", 'comfyproxy="x", comfyproxy=y')
PROMPTS = ('{"prompt": {"1": {"class_type": "A"}}, "client_id": "c"}', '{"prompt_id": null}', " {}")
RULES = ("set X-Robots-Tag: noindex", "add Via: 1.1 {server}", "remove X-Powered-By", "set Host: {host}")
CHAINS = ("1.2.3.4, 10.0.0.2", 'for="[2001:db8::1]:80";proto=https, for=_x;by=1.2.3.4, for="a,b\\""', '"')
HTTP_WORDS = (
    *(
        "Transfer-Encoding:",
        "Content-Length:",
        "Connection:",
        "Upgrade:",
        "Host:",
        "Expect:",
        "Max-Forwards:",
    ),
    *("chunked", "identity", "close", "keep-alive", "websocket", "100-continue", "HTTP/1.0", "HTTP/1.1"),
    *("\r\n", "\r\n\r\n", "0\r\n\r\n", ";a=b", ';a="b"', "GET ", "HEAD ", "OPTIONS * ", "http://b/"),
)
LIST_WORDS = (
    "http://",
    "https://",
    "tcp://",
    "[1-3]",
    "[01-10]",
    "[::1]",
    " weight=",
    " max_conns=",
    " name=",
)
TOML_WORDS = (
    "[pools.a]",
    "[[routes]]",
    "url",
    "file",
    "listen",
    "timeouts",
    '"""',
    "'''",
    " = ",
    "\n",
    "prefix",
)


def _headers() -> Iterable[bytes]:
    ends = End("192.0.2.1", 4711), End("192.0.2.2", 80)
    more = End("2001:db8::1", 1), End("2001:db8::2", 2)
    yield from (make_header(version, *pair) for version in (V1, V2) for pair in (ends, more))
    yield from (own_header(V1), own_header(V2), b"PROXY UNKNOWN ::1 ::1 1 2\r\nGET / HTTP/1.1\r\n\r\n")
    # Version 2 with a checksum, and with PP2_TYPE_SSL.
    block = SIGNATURE + b"\x21\x11\0\x13" + bytes(12) + b"\x03\0\x04"
    yield block + crc32c(block + bytes(4)).to_bytes(4)
    yield SIGNATURE + b"\x21\x11\0\x14" + bytes(12) + b"\x20\0\x05\x01\0\0\0\0"


def _name_servers() -> Iterable[bytes]:
    four = dns.RRHeader(NAME, dns.A, ttl=60, payload=dns.Record_A("192.0.2.1"))
    six = dns.RRHeader(NAME, dns.AAAA, ttl=60, payload=dns.Record_AAAA("2001:db8::1"))
    alias = dns.RRHeader(NAME, dns.CNAME, ttl=9, payload=dns.Record_CNAME("other"))
    other = dns.RRHeader("other", dns.A, ttl=60, payload=dns.Record_A("192.0.2.2"))
    yield servers.reply(dns.A, four) + servers.reply(dns.AAAA, six)
    yield servers.reply(dns.A, alias, other) + servers.reply(dns.AAAA, alias)


def _probe_answers() -> Iterable[bytes]:
    return (case.raw for case in cases(*RESPONSES))


def _option_values() -> Iterable[bytes]:
    for number, option in enumerate(OPTIONS):
        for text in VALUES if number < len(VALUES) else (option.default_text,):
            yield bytes([number]) + text.encode()


def _frames() -> Iterable[bytes]:
    yield b"\x03\x81\x05hello\x82\x7e\x00\x80" + bytes(128) + b"\x88\x02\x03\xe8"
    yield b"\x09\x81\x85abcdhello\x89\x80abcd\x82\xff" + bytes(7) + b"\x01abcdx\x0a"


def _sample() -> Iterable[bytes]:
    return [*_texts(*TOML)(), (ROOT / "tap.conf").read_bytes()]


TARGETS = {
    "request": Target(messages.request, _requests, HTTP_WORDS),
    "answer": Target(messages.answer, _answers, HTTP_WORDS),
    "chunked": Target(messages.chunked, _chunked, HTTP_WORDS[13:]),
    "client": Target(proxies.client, _numbered(_requests, 12), HTTP_WORDS),
    "backend": Target(proxies.backend, _numbered(_answers, 20), HTTP_WORDS),
    "servers": Target(configuration.servers, _texts(*SERVERS), LIST_WORDS),
    "server-list": Target(configuration.server_list, _texts(*SERVERS), LIST_WORDS),
    "server-range": Target(configuration.server_range, _texts(*SERVERS), LIST_WORDS),
    "server-json": Target(configuration.server_json, _texts(*JSON), LIST_WORDS),
    "tap-conf": Target(configuration.tap_conf, _sample, TOML_WORDS),
    "dot-env": Target(configuration.dot_env, _texts(*DOTENV)),
    "header-rule": Target(configuration.header_rule, _texts(*RULES), ("{client}", "{request_id}", ": ")),
    "proxy-header": Target(
        connections.proxy_header, _headers, ("PROXY TCP4 ", "PROXY TCP6 ", "UNKNOWN", "\r\n")
    ),
    "trust": Target(connections.trust, _texts(*CHAINS), ("for=", "10.0.0.1", '"', "\\", "[", "]")),
    "frames": Target(connections.frames, _frames),
    "option-value": Target(configuration.option_value, _option_values, VALUES),
    "name-server": Target(servers.name_server, _name_servers),
    "probe-answer": Target(servers.probe_answer, _probe_answers, HTTP_WORDS),
    "names": Target(servers.names, _texts(*RESOLV), ("nameserver ", "search ", "options ", "ndots:")),
    "claims": Target(
        clients.claims, _requests, ("/ws?clientId=", "/history/", "/view?filename=", "Cookie: ")
    ),
    "cookie": Target(clients.cookie, _texts(*COOKIES), ("comfyproxy=",)),
    "prompt": Target(clients.prompt, _texts(*PROMPTS), ('"prompt_id"', '"client_id"', "NaN")),
}


def seeds(name: str) -> list[bytes]:
    """What a target starts from: its own inputs, and those that once failed it."""
    found = [path.read_bytes() for path in sorted((FOUND / name).glob("*"))]
    return [*(seed for seed in TARGETS[name].seeds() if len(seed) <= MAX_SEED), *found]
