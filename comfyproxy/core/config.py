"""What a configuration says, as values: where every way to configure comfyproxy ends.

The options in `comfyproxy.core.configuration.options` set these fields, and
`comfyproxy.core.configuration.loading` puts them together.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from comfyproxy.core.balancing.ratelimits import RateLimit
from comfyproxy.core.balancing.selection.balance import Balance
from comfyproxy.core.configuration.addresses import MAX_SERVERS, Address
from comfyproxy.core.http.headerrules import HeaderRule
from comfyproxy.core.http.headers import WRITTEN

App = Literal["comfyui", "http"]
Placement = Literal["client", "request", "prompt"]
QueueStatus = Literal["own", "pool"]
Sticky = Literal["none", "cookie"]
WebSocketMode = Literal["auto", "messages", "relay"]
AccessLog = Literal["none", "routing", "combined", "json"]
ProxyProtocol = Literal["none", "v1", "v2"]
RequestIDs = Literal["errors", "servers", "answers"]

DEFAULT_LISTEN = "tcp:8080:interface=127.0.0.1"
DEFAULT_URL = "http://127.0.0.1:8188"
DEFAULT_DRAIN_TIMEOUT = 30.0
DEFAULT_RESOLVE_INTERVAL = 10.0
DEFAULT_MAX_QUEUE = 1024
DEFAULT_RETRIES = 10
DEFAULT_RETRY_BUDGET = 0.2
DEFAULT_POOL = "default"
DEFAULT_MIN_RATE = 100
DEFAULT_PLACEMENTS: Mapping[App, Placement] = {"comfyui": "prompt", "http": "request"}
DEFAULT_PROBES: Mapping[App, str] = {"comfyui": "comfyui", "http": "none"}

BALANCED_PREFIXES = (
    "/internal",
    "/api",
    "/ws",
    "/workflow_templates",
    "/extensions",
    "/docs",
    "/templates",
)
"""What goes to the pool when something else serves the pages: the proxied routes of ComfyUI's dev server."""


@dataclass(frozen=True, slots=True)
class Timeouts:
    """How long to wait, in seconds; 0 waits for ever."""

    connect: float = 5
    head: float = 30
    body: float = 60
    response: float = 1800
    idle: float = 600
    keepalive: float = 75
    backend_keepalive: float = 55
    websocket_ping: float = 25
    websocket_dead: float = 75
    queue: float = 30
    retry: float = 15


@dataclass(frozen=True, slots=True)
class Limits:
    """How much to take: ``head``, ``line``, ``body`` and ``message`` (of a WebSocket) in bytes, ``min_rate``
    in bytes a second, the others counted.

    ``requests`` are those of one connection. For ``body``, ``connections``, ``connections_per_address``,
    ``requests`` and ``min_rate``, 0 is no limit.
    """

    head: int = 65_536
    line: int = 16_384
    fields: int = 200
    body: int = 0
    message: int = 128 * 1024 * 1024
    connections: int = 0
    connections_per_address: int = 0
    requests: int = 0
    min_rate: int = DEFAULT_MIN_RATE
    max_servers: int = MAX_SERVERS


@dataclass(frozen=True, slots=True)
class HealthConfig:
    """How a pool finds out which of its servers work, and what it does about those that do not.

    ``probe`` is ``comfyui``, ``tcp``, ``none`` or ``http:/PATH``, and ``status`` has the ranges of statuses
    that are good. Times are in seconds, shares of 1.
    """

    probe: str = "comfyui"
    status: tuple[tuple[int, int], ...] = ((200, 399),)
    interval: float = 5
    timeout: float = 5
    rise: int = 2
    fall: int = 3
    eject_failures: int = 5
    eject_time: float = 10
    eject_share: float = 0.5
    panic_threshold: float = 0.1
    slow_start: float = 0


@dataclass(frozen=True, slots=True)
class ComfyUIConfig:
    """How the servers of placement ``prompt`` behave as one.

    ``requeue`` runs a prompt again that ran on a server as it failed. ``queue_status`` says whose prompts
    clients are told to be left: their own, or the pool's. ``home`` is the URL or the name of the server that
    keeps settings and saved workflows; empty for the first that is ready. ``replicate_uploads`` brings an
    uploaded file to every server at once, not only to those that need it.
    """

    requeue: bool = False
    queue_status: QueueStatus = "own"
    home: str = ""
    replicate_uploads: bool = False


@dataclass(frozen=True, slots=True)
class PoolConfig:
    """A named set of servers and how requests are spread over them.

    ``max_queue`` requests may wait for room, and ``retry_budget`` is a share of 1. ``sticky`` is for plain
    HTTP; its cookie is signed with ``sticky_secret`` if that is not empty.
    """

    name: str
    addresses: tuple[Address, ...]
    app: App = "comfyui"
    placement: Placement = "prompt"
    insecure_backends: bool = False
    balance: Balance = field(default_factory=Balance)
    sticky: Sticky = "none"
    sticky_secret: str = field(default="", repr=False)
    health: HealthConfig = HealthConfig()
    comfyui: ComfyUIConfig = ComfyUIConfig()
    send_proxy_protocol: ProxyProtocol = "none"
    max_queue: int = DEFAULT_MAX_QUEUE
    retry_budget: float = DEFAULT_RETRY_BUDGET


@dataclass(frozen=True, slots=True)
class RouteConfig:
    """Where requests under ``prefix`` go: a pool, the directory ``static`` or the server ``frontend``.

    Exactly one of the three is set. ``retries`` counts the attempts after the first one; ``retry_on`` says
    after which statuses, or after ``timeout``, a request that may be repeated goes to another server.
    ``max_body`` and ``min_rate`` are as in `Limits`.
    """

    prefix: str
    pool: str | None = None
    static: str | None = None
    frontend: Address | None = None
    timeouts: Timeouts = Timeouts()
    retries: int = DEFAULT_RETRIES
    retry_on: tuple[str, ...] = ()
    max_body: int = 0
    min_rate: int = DEFAULT_MIN_RATE
    rate_limits: tuple[RateLimit, ...] = ()
    request_headers: tuple[HeaderRule, ...] = ()
    response_headers: tuple[HeaderRule, ...] = ()


@dataclass(frozen=True, slots=True)
class Config:
    """All of it. Paths are absolute; ``access_log_file`` is ``-`` for the console.

    ``drain_timeout`` and ``resolve_interval`` are in seconds. Without ``name_servers`` (IP address and
    port) the system's are asked.
    """

    pools: Mapping[str, PoolConfig]
    routes: tuple[RouteConfig, ...]
    listen: tuple[str, ...] = (DEFAULT_LISTEN,)
    tcp: bool = False
    websocket: WebSocketMode = "auto"
    trusted_proxies: tuple[str, ...] = ()
    accept_proxy_protocol: bool = False
    forwarding_headers: tuple[str, ...] = WRITTEN
    access_log: AccessLog = "routing"
    access_log_file: str = "-"
    debug: bool = False
    plain_io: bool = False
    request_ids: RequestIDs = "errors"
    drain_timeout: float = DEFAULT_DRAIN_TIMEOUT
    resolve_interval: float = DEFAULT_RESOLVE_INTERVAL
    name_servers: tuple[tuple[str, int], ...] = ()
    rate_limits: tuple[RateLimit, ...] = ()
    timeouts: Timeouts = field(default_factory=Timeouts)
    limits: Limits = field(default_factory=Limits)
