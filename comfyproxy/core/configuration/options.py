"""Every option there is, in one table.

The command line (``comfyproxy`` and ``twistd comfyproxy``), the environment, ``.env``, ``tap.conf``,
``--help`` and the reference all come from it. A new option is an entry here and a field in
`comfyproxy.core.config`.
"""

from dataclasses import fields

from comfyproxy.core.balancing.selection.balance import Balance
from comfyproxy.core.config import (
    DEFAULT_DRAIN_TIMEOUT,
    DEFAULT_LISTEN,
    DEFAULT_MAX_QUEUE,
    DEFAULT_RESOLVE_INTERVAL,
    DEFAULT_RETRIES,
    DEFAULT_RETRY_BUDGET,
    DEFAULT_URL,
    Limits,
    Timeouts,
)
from comfyproxy.core.configuration.comfyui_options import COMFYUI_OPTIONS
from comfyproxy.core.configuration.health_options import HEALTH_OPTIONS
from comfyproxy.core.configuration.kinds import (
    BALANCE,
    BOUND,
    COUNT,
    DIRECTORY,
    DURATION,
    ENDPOINT,
    FILE,
    FLAG,
    NAME_SERVER,
    NETWORK,
    NUMBER,
    PERCENT,
    RATE_LIMIT,
    REQUEST_RULE,
    RESPONSE_RULE,
    SECRET,
    SERVER_LIST,
    SIZE,
    URL,
    choice,
)
from comfyproxy.core.configuration.option import (
    BALANCING,
    CLIENTS,
    HEADERS,
    LIMITS,
    LOGGING,
    SERVERS,
    SOURCES,
    TIMEOUTS,
    Option,
)
from comfyproxy.core.http.headers import WRITABLE, WRITTEN

_TIMEOUTS = Timeouts()
_LIMITS = Limits()

OPTIONS = (
    Option(
        "url",
        SERVERS,
        SERVER_LIST,
        "servers, divided by , or ; and with ranges such as http://gpu[1-8]:8188",
        (DEFAULT_URL,),
        variable="DEV_SERVER_COMFYUI_URL",
        repeatable=True,
        group="servers",
        for_pools=True,
    ),
    Option(
        "file",
        SERVERS,
        FILE,
        "a file of servers: one URL a line, or a JSON array if its name ends in .json; a path or file:// URL",
        variable="DEV_SERVER_COMFYUI_FILE",
        repeatable=True,
        group="servers",
        for_pools=True,
    ),
    Option(
        "app",
        SERVERS,
        choice("comfyui", "http"),
        "what the servers are: ComfyUI, or any HTTP service, to which Host and Origin pass untouched",
        "comfyui",
        for_pools=True,
    ),
    Option(
        "placement",
        SERVERS,
        choice("prompt", "client", "request"),
        "what is balanced: each prompt of ComfyUI goes to the best server, a client stays with its server, or"
        " each request goes to the next one (default: prompt for comfyui, request for http)",
        for_pools=True,
    ),
    Option(
        "insecure-backends",
        SERVERS,
        FLAG,
        "accept any certificate from https:// servers",
        False,
        for_pools=True,
    ),
    Option(
        "send-proxy-protocol",
        SERVERS,
        choice("none", "v1", "v2"),
        "begin each connection to a server with a header that says whose it is",
        "none",
        for_pools=True,
    ),
    Option("tcp", SERVERS, FLAG, "balance plain TCP connections over tcp:// servers", False),
    Option(
        "resolve-interval",
        SERVERS,
        DURATION,
        "that the addresses of a server's name are kept, or their TTL if that is less; 0: not at all",
        DEFAULT_RESOLVE_INTERVAL,
    ),
    Option(
        "name-server",
        SERVERS,
        NAME_SERVER,
        "ask this name server, an IP address with or without a port, and not those of the system",
        (),
        repeatable=True,
    ),
    Option(
        "balance",
        BALANCING,
        BALANCE,
        "which server is next: round-robin, least-conn, random-two, ewma, first, ip-hash, hash:header=NAME,"
        " hash:cookie=NAME, hash:query=NAME or hash:uri",
        Balance(),
        for_pools=True,
    ),
    Option(
        "sticky",
        BALANCING,
        choice("none", "cookie"),
        "keep a client of a plain HTTP service with its server by a cookie",
        "none",
        for_pools=True,
    ),
    Option(
        "sticky-secret",
        BALANCING,
        SECRET,
        "sign that cookie with this secret; better given by the environment or .env",
        for_pools=True,
    ),
    Option(
        "max-queue",
        BALANCING,
        NUMBER,
        "requests that wait while all servers have max_conns of them; 0: none does",
        DEFAULT_MAX_QUEUE,
        for_pools=True,
    ),
    Option(
        "retries",
        BALANCING,
        NUMBER,
        "other servers that a request is tried on when one fails; 0: none",
        DEFAULT_RETRIES,
        for_routes=True,
    ),
    Option(
        "retry-on",
        BALANCING,
        choice("502", "503", "504", "timeout", separator="[,;]"),
        "take such an answer, or none in time, for a failure after which a GET or the like goes to another"
        " server",
        (),
        repeatable=True,
        for_routes=True,
    ),
    Option(
        "retry-budget",
        BALANCING,
        PERCENT,
        "of the requests may be sent a second time; three at a time always may",
        DEFAULT_RETRY_BUDGET,
        for_pools=True,
    ),
    *HEALTH_OPTIONS,
    *COMFYUI_OPTIONS,
    Option(
        "listen",
        CLIENTS,
        ENDPOINT,
        "where to listen: a Twisted server endpoint",
        (DEFAULT_LISTEN,),
        repeatable=True,
    ),
    Option(
        "static",
        CLIENTS,
        DIRECTORY,
        "serve this directory, a built frontend, and balance only the routes of ComfyUI's API",
        group="pages",
    ),
    Option(
        "frontend",
        CLIENTS,
        URL,
        "pass all but the routes of ComfyUI's API to this server, for example a Vite dev server",
        group="pages",
    ),
    Option(
        "websocket",
        CLIENTS,
        choice("auto", "messages", "relay"),
        "WebSockets: relay the bytes, see the messages, or whichever the application needs",
        "auto",
    ),
    Option(
        "plain-io",
        CLIENTS,
        FLAG,
        "use Twisted's stock transports and no splice, to find out whether an accelerator is at fault",
        False,
    ),
    Option(
        "trusted-proxy",
        CLIENTS,
        NETWORK,
        "believe what the proxies in this network say of clients: their X-Forwarded fields and the like",
        (),
        repeatable=True,
    ),
    Option(
        "accept-proxy-protocol",
        CLIENTS,
        FLAG,
        "connections from trusted proxies begin with a header of the PROXY protocol; without one they end",
        False,
    ),
    Option(
        "request-id",
        CLIENTS,
        choice("errors", "servers", "answers"),
        "what carries an X-Request-ID: the proxy's own answers, requests to servers too, or all answers too",
        "errors",
    ),
    Option(
        "forwarding-headers",
        HEADERS,
        choice(*WRITABLE, "none", separator="[,;]"),
        "what tells servers about clients: x-forwarded is X-Forwarded-For, -Proto and -Host, forwarded is"
        " RFC 7239's",
        WRITTEN,
        repeatable=True,
    ),
    Option(
        "request-header",
        HEADERS,
        REQUEST_RULE,
        'what to do to the fields of requests: "set X-Client: {client}", "add NAME: VALUE", "remove NAME"',
        (),
        repeatable=True,
        for_routes=True,
    ),
    Option(
        "response-header",
        HEADERS,
        RESPONSE_RULE,
        'the same for the answers of servers: "remove Server", "set X-Frame-Options: DENY"',
        (),
        repeatable=True,
        for_routes=True,
    ),
    Option(
        "access-log",
        LOGGING,
        choice("none", "routing", "combined", "json"),
        "what to write for each request; routing is one [LoadBalancer] line",
        "routing",
    ),
    Option("access-log-file", LOGGING, FILE, "where to write it; - is the console", "-"),
    Option(
        "debug", LOGGING, FLAG, "show more in the log, and the addresses of servers in error pages", False
    ),
    Option(
        "connect-timeout", TIMEOUTS, DURATION, "for a connection to a server to come about", _TIMEOUTS.connect
    ),
    Option("head-timeout", TIMEOUTS, DURATION, "for a client to send the head of a request", _TIMEOUTS.head),
    Option("body-timeout", TIMEOUTS, DURATION, "between two pieces of a request's body", _TIMEOUTS.body),
    Option("response-timeout", TIMEOUTS, DURATION, "for a server to begin its answer", _TIMEOUTS.response),
    Option(
        "idle-timeout",
        TIMEOUTS,
        DURATION,
        "between two pieces of an answer, or of a plain TCP connection",
        _TIMEOUTS.idle,
    ),
    Option(
        "keepalive-timeout",
        TIMEOUTS,
        DURATION,
        "that a client's connection waits for the next request",
        _TIMEOUTS.keepalive,
    ),
    Option(
        "backend-keepalive-timeout",
        TIMEOUTS,
        DURATION,
        "that a connection to a server is kept for reuse",
        _TIMEOUTS.backend_keepalive,
    ),
    Option(
        "queue-timeout",
        TIMEOUTS,
        DURATION,
        "for a server to have room while all have max_conns requests",
        _TIMEOUTS.queue,
    ),
    Option(
        "retry-timeout",
        TIMEOUTS,
        DURATION,
        "from a request's first failure on for another server to be tried",
        _TIMEOUTS.retry,
    ),
    Option(
        "websocket-ping",
        TIMEOUTS,
        DURATION,
        "of a WebSocket peer's silence until it gets a ping; relayed WebSockets have TCP keep-alive instead",
        _TIMEOUTS.websocket_ping,
    ),
    Option(
        "websocket-dead",
        TIMEOUTS,
        DURATION,
        "from that ping on without any sign of life until the peer counts as dead",
        _TIMEOUTS.websocket_dead,
    ),
    Option(
        "drain-timeout",
        TIMEOUTS,
        DURATION,
        "for what runs to end once the proxy is told to stop; 0 cuts it off at once",
        DEFAULT_DRAIN_TIMEOUT,
    ),
    Option("max-head", LIMITS, BOUND, "bytes in all header fields of a message", _LIMITS.head),
    Option("max-line", LIMITS, BOUND, "bytes in a request line", _LIMITS.line),
    Option("max-fields", LIMITS, COUNT, "header fields in a message", _LIMITS.fields),
    Option(
        "max-body", LIMITS, SIZE, "bytes in a request's body; 0 is no limit", _LIMITS.body, for_routes=True
    ),
    Option(
        "max-message",
        LIMITS,
        BOUND,
        "bytes in a message of a WebSocket, once decompressed; relayed WebSockets have no limit",
        _LIMITS.message,
    ),
    Option(
        "max-connections",
        LIMITS,
        NUMBER,
        "connections of clients; more wait to be accepted; 0 is what the file descriptors are enough for",
        _LIMITS.connections,
    ),
    Option(
        "max-connections-per-address",
        LIMITS,
        NUMBER,
        "of them from one IPv4 address or IPv6 /64; more are answered 429; 0 is no limit",
        _LIMITS.connections_per_address,
    ),
    Option(
        "max-requests",
        LIMITS,
        NUMBER,
        "requests that one connection of a client is kept for; 0 is no limit",
        _LIMITS.requests,
    ),
    Option(
        "rate-limit",
        LIMITS,
        RATE_LIMIT,
        "requests of one client, such as 10/s,burst=20; by=cookie:NAME or by=header:NAME says what a client"
        " is, if not an address; more are answered 429",
        (),
        repeatable=True,
        for_routes=True,
    ),
    Option(
        "min-rate",
        LIMITS,
        SIZE,
        "bytes a second that a client must send of a body, or take of an answer, on average over body-timeout"
        " or idle-timeout; 0 is no least rate",
        _LIMITS.min_rate,
        for_routes=True,
    ),
    Option(
        "max-servers",
        LIMITS,
        COUNT,
        "servers in a pool, so that a mistyped range costs nothing",
        _LIMITS.max_servers,
    ),
    Option(
        "config",
        SOURCES,
        FILE,
        "the file of options to read (default: tap.conf, if there is one)",
        in_tap_conf=False,
    ),
    Option(
        "env-file",
        SOURCES,
        FILE,
        "the file of variables to read (default: .env, if there is one)",
        in_tap_conf=False,
    ),
)

OPTION = {option.key: option for option in OPTIONS}
"""The options by key."""

TIMEOUT_OPTIONS = {
    one.name: OPTION.get(f"{one.name}_timeout") or OPTION[one.name] for one in fields(Timeouts)
}
"""The options that set the fields of `Timeouts`, by field."""

LIMIT_OPTIONS = {one.name: OPTION.get(f"max_{one.name}") or OPTION[one.name] for one in fields(Limits)}
"""The options that set the fields of `Limits`, by field."""
