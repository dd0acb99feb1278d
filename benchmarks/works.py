"""What is measured: the works, each with its load, its peers and what is wanted of the proxy."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.backends import LARGE, Backends
from benchmarks.client import Failed, Result
from benchmarks.peers import COMFYPROXY, CONFIGURATIONS, HAPROXY, NGINX
from benchmarks.processes import HERE

SMALL_PATH = "/api/models"
"""Of what comes from a server whatever the placement is."""

BROWSER = (
    "User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/143.0",
    "Accept: */*",
    "Accept-Language: en-US,en;q=0.9",
    "Accept-Encoding: gzip, deflate, br, zstd",
    "Comfy-User: default",
    "Cache-Control: no-cache",
    "Pragma: no-cache",
    "Referer: http://127.0.0.1:8188/",
    "Sec-Fetch-Dest: empty",
    "Sec-Fetch-Mode: cors",
    "Sec-Fetch-Site: same-origin",
    "Cookie: theme=dark; session=0123456789abcdef0123456789abcdef",
)
"""What Chromium sends with a request of ComfyUI's page."""

Load = Callable[[int, float], Result]
"""Puts a load on a port for so many seconds; the result has ``count``, and what else it measured."""


@dataclass(frozen=True)
class Work:
    """One line of the comparison.

    ``unit`` is what is counted, ``scale`` the unit of time in which its cost is shown (``us`` or ``ms``).
    ``times`` says that the load times single requests, which says little without those that had no proxy.
    """

    name: str
    title: str
    load: Load
    unit: str = "request"
    scale: str = "us"
    log: bool = False
    large: bool = False
    sockets: bool = False
    times: bool = False
    reference: str = NGINX

    def servers(self, backends: Backends) -> Sequence[str]:
        """The servers behind the proxy."""
        return backends.sockets if self.sockets else backends.three


def client(kind: str, path: str, *before: int, after: tuple[int | str, ...] = ()) -> Load:
    """A load of `benchmarks.client`; the seconds stand between ``before`` and ``after``."""

    def load(port: int, seconds: float) -> Result:
        arguments = [kind, port, path, *before, float(seconds), *after]
        command = [sys.executable, "-m", "benchmarks.client", *map(str, arguments)]
        root = Path(__file__).resolve().parent.parent
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 60, cwd=root)
        if done.returncode:
            raise Failed(done.stderr.strip().splitlines()[-1])
        result: Result = json.loads(done.stdout)
        if result.get("failures"):
            raise Failed(result["failures"][0])
        return result

    return load


def small_requests(connections: int, *lines: str, varied: str = "") -> Load:
    """Small requests by wrk or, where there is none, by our own client, which is slower and never varies.

    ``varied`` is what differs from request to request: the ``target``, or the cookie of ``strangers`` too.
    """

    def load(port: int, seconds: float) -> Result:
        wrk = shutil.which("wrk")
        if wrk is None or seconds < 0.5:
            return client("small", SMALL_PATH, connections)(port, seconds)
        fields = [part for line in lines for part in ("-H", line)]
        command = [wrk, "-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s", *fields]
        if varied:
            command += ["-s", str(CONFIGURATIONS / "varied.lua")]
        command += [f"http://{HERE}:{port}{SMALL_PATH}", "--", varied]
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 60)
        return read_wrk(done.stdout)

    return load


def read_wrk(text: str) -> Result:
    """What wrk counted; raises `Failed` if not every answer was a good one."""
    found = re.search(r"(\d+) requests in ([\d.]+)(m?s),", text)
    errors = re.search(r"(Socket errors|Non-2xx).*", text)
    if found is None or errors is not None:
        raise Failed(errors.group() if errors is not None else f"wrk said: {text[-300:]}")
    seconds = float(found[2]) * (0.001 if found[3] == "ms" else 1)
    return {"count": int(found[1]), "seconds": seconds}


WORKS = (
    Work("small", "small GET, 32 connections, no log", small_requests(32)),
    Work(
        "logged",
        "small GET, 32 connections, a log line each",
        small_requests(32),
        log=True,
    ),
    Work(
        "browser",
        "small GET with a browser's 13 fields, each of another target",
        small_requests(32, *BROWSER, varied="target"),
    ),
    Work(
        "strangers",
        "small GET with a browser's 13 fields, each of another client",
        small_requests(32, *BROWSER, varied="strangers"),
    ),
    Work(
        "latency",
        "small GET, 1 connection: latency",
        client("latency", SMALL_PATH),
        times=True,
    ),
    Work(
        "download",
        "download of 10 MiB, 4 connections",
        client("get", "/api/large", 4),
        unit="body",
        scale="ms",
        large=True,
        reference=HAPROXY,
    ),
    Work(
        "upload",
        "upload of 10 MiB, 4 connections",
        client("upload", "/api/upload/image", 4, after=(LARGE,)),
        unit="body",
        scale="ms",
        large=True,
        reference=HAPROXY,
    ),
    Work(
        "picture",
        "picture of 1 MiB, 8 connections",
        client("get", "/view?filename=picture.png", 8),
        unit="picture",
        large=True,
    ),
    Work(
        "echo",
        "WebSocket, 120 B text echo, 16 connections",
        client("websocket", "/ws", 16, after=(120, "text")),
        unit="echo",
        sockets=True,
    ),
    Work(
        "preview",
        "WebSocket, 50 kB binary echo, 16 connections",
        client("websocket", "/ws", 16, after=(50_000, "binary")),
        unit="echo",
        sockets=True,
    ),
)

QUICK = (COMFYPROXY, NGINX, HAPROXY)
QUICK_WORKS = ("small", "logged", "browser", "latency", "download", "upload", "picture", "echo")
"""The peers and the works of a quick run."""
