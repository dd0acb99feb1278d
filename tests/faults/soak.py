"""Mixed load and chaos for some minutes: nothing is lost where it may be tried again, and memory stays flat.

    python3 dev.py soak [--minutes N] [--seed N] [--json]

One daemon balances three simulated ComfyUI servers and three plain ones, another plain TCP, and for a third
three ComfyUI servers are one (`prompt_soak`). Clients ask and ask, keep WebSockets open, leave early.
Meanwhile servers are killed, stopped and started again, one at a time, and the configuration is reloaded.
The exit status is 1 when a request was lost that may be tried again, when a prompt has no end or two, when
something is left alive at the end, or when memory grows.
"""

import argparse
import json
import random
import socket
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]

from fault_rig.daemon import Daemon  # noqa: E402
from fault_rig.load import SIMULATED_COMFYUI, Load, NamedServer, load  # noqa: E402
from prompt_soak import PromptSoak  # noqa: E402
from websockets.exceptions import WebSocketException  # noqa: E402
from websockets.sync.client import connect  # noqa: E402

from comfyproxy.demo.first_prompt import demo_workflow  # noqa: E402

SETTLED = 0.25
"""Share of the time after which memory is expected to have found its level."""

MORE_HEADS = 1500
"""More than `comfyproxy.core.http.http1.KEPT_HEADS` and `comfyproxy.core.http.fields.KEPT_BLOCKS`."""

MAY_GROW = 2 * 1024 * 1024
"""Octets by which the daemon may have grown from then on to the end, by the slope of its samples."""

KEPT = ("objects: Connector", "objects: Timeouts", "objects: Ejection", "timers: _Round.come_due")
"""What may be more at the end than at the start: what is known of a server once it was asked."""


@dataclass
class Sockets:
    """What clients of WebSockets saw."""

    opened: int = 0
    messages: int = 0
    closed: int = 0
    refused: int = 0


@dataclass
class Sample:
    """The daemon at one moment, ``at`` so many seconds."""

    at: float
    memory: int
    descriptors: int


@dataclass
class Soak:
    """What was seen."""

    samples: list[Sample] = field(default_factory=list)
    chaos: dict[str, int] = field(default_factory=dict)
    sockets: Sockets = field(default_factory=Sockets)
    left: int = 0
    loads: dict[str, Load] = field(default_factory=dict)
    left_behind: str = ""
    prompts: PromptSoak | None = None


SAFE = ("GET", "ComfyUI GET", "large GET")
"""Loads of which every request may be tried again: none of them may be lost."""


def main() -> int:
    """Soak, tell, and say whether it held."""
    parser = argparse.ArgumentParser("soak", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--minutes", type=float, default=3.0)
    parser.add_argument("--seed", type=int, default=4)
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of the table")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        soak = run(Path(directory), arguments.minutes * 60, random.Random(arguments.seed))
    result = summary(soak)
    print(json.dumps(result, indent=2) if arguments.json else table(result))
    return 0 if result["passed"] else 1


def run(directory: Path, seconds: float, luck: random.Random) -> Soak:
    """Soak for so many seconds."""
    soak = Soak()
    with ExitStack() as running:
        comfy = [running.enter_context(started(f"gpu-{n}", SIMULATED_COMFYUI)) for n in range(3)]
        plain = [running.enter_context(started(f"plain-{n}")) for n in range(3)]
        gpus = [running.enter_context(started(f"one-{n}", SIMULATED_COMFYUI)) for n in range(3)]
        daemon, tcp = daemons(directory, comfy, plain, running)
        soak.prompts = PromptSoak(directory, gpus, luck)
        running.callback(soak.prompts.daemon.kill)
        fill_caches(daemon)
        fill_caches_of_one_comfyui(soak.prompts.daemon)
        ended = threading.Event()
        with ExitStack() as clients:
            for name, one in all_loads(daemon.port, tcp.port).items():
                soak.loads[name] = clients.enter_context(one)
            extra = [
                threading.Thread(target=watch_events, args=(daemon.port, n, soak, ended)) for n in range(6)
            ]
            extra += [threading.Thread(target=leave_early, args=(daemon.port, soak, ended)) for _ in range(2)]
            for thread in extra:
                thread.start()
            soak.prompts.start()
            try:
                disturb(soak, daemon, [*comfy, *gpus], plain, seconds, luck, directory)
            finally:
                ended.set()
                soak.prompts.finish()
            for thread in extra:
                thread.join()
        for server in (*comfy, *plain, *gpus):
            server.kill()
        soak.left_behind = left_behind(daemon)
    return soak


@contextmanager
def started(name: str, *program: Path) -> Iterator[NamedServer]:
    """A running server process."""
    server = NamedServer(name, *program)
    try:
        server.start()
        yield server
    finally:
        server.close()


def daemons(
    directory: Path, comfy: list[NamedServer], plain: list[NamedServer], running: ExitStack
) -> tuple[Daemon, Daemon]:
    """The proxy for HTTP and the one for TCP, with checks of servers and ejection as ever."""
    write_servers(directory, plain)
    config = directory / "tap.conf"
    config.write_text(f"""
probe_interval = "1s"
probe_timeout = "1s"
[pools.comfy]
placement = "client"
url = "{",".join(server.url for server in comfy)}"
[pools.plain]
file = "servers.txt"
app = "http"
placement = "request"
[[routes]]
prefix = "/plain"
pool = "plain"
[[routes]]
prefix = "/"
pool = "comfy"
""")
    urls = ",".join(server.url.replace("http", "tcp") for server in plain)
    made = []
    for name, options in (("http", ["--config", config]), ("tcp", ["--tcp", "--url", urls])):
        (directory / name).mkdir()
        daemon = Daemon(directory / name, *options, quiet=False)
        running.callback(daemon.kill)
        made.append(daemon)
    return made[0], made[1]


def write_servers(directory: Path, servers: list[NamedServer]) -> None:
    """Name ``servers`` in the file of the plain pool, in one step."""
    new = directory / "servers.new"
    new.write_text("".join(f"{server.url}\n" for server in servers))
    new.replace(directory / "servers.txt")


def all_loads(port: int, tcp_port: int) -> dict[str, Any]:
    """The requests that go on all the time, by name."""
    prompt = json.dumps({"prompt": demo_workflow(seconds=1), "client_id": "soak"}).encode()
    return {
        "GET": load(port, "/plain/", clients=4, pause=0.005),
        "large GET": load(port, "/plain/large", clients=1, pause=0.1),
        "POST": load(port, "/plain/", clients=2, method="POST", body=b"b" * 100_000, pause=0.02),
        "ComfyUI GET": load(port, "/system_stats", clients=3, pause=0.02),
        "prompts": load(
            port, "/prompt", clients=1, method="POST", body=prompt, pause=0.3,
            fields="Content-Type: application/json\r\n",
        ),
        "TCP": load(tcp_port, "/", clients=2, fields="Connection: close\r\n", pause=0.02),
    }  # fmt: skip


def watch_events(port: int, number: int, soak: Soak, ended: threading.Event) -> None:
    """Keep a WebSocket open as a page does: when it closes, open the next."""
    while not ended.is_set():
        try:
            with connect(f"ws://127.0.0.1:{port}/ws?clientId=soak-{number}", max_size=None) as events:
                soak.sockets.opened += 1
                until = time.monotonic() + 10
                while not ended.is_set() and time.monotonic() < until:
                    try:
                        events.recv(timeout=0.5)
                        soak.sockets.messages += 1
                    except TimeoutError:
                        continue
        except (WebSocketException, OSError) as error:
            if "HTTP" in str(error):
                soak.sockets.refused += 1
            else:
                soak.sockets.closed += 1
            ended.wait(0.2)


def fill_caches(daemon: Daemon) -> None:
    """Send more different heads, and have them sent back, than a proxy keeps: its caches grow no more."""
    for target in ("/plain/", "/system_stats"):
        with closing(HTTPConnection("127.0.0.1", daemon.port, timeout=15)) as client:
            for number in range(MORE_HEADS):
                ask(client, "GET", target, number)


def fill_caches_of_one_comfyui(daemon: Daemon) -> None:
    """The same where servers are one, which make most answers themselves: a file of many lengths."""
    with closing(HTTPConnection("127.0.0.1", daemon.port, timeout=15)) as client:
        for number in range(MORE_HEADS):
            ask(client, "POST", "/userdata/length", number, b"." * number)
            ask(client, "GET", "/userdata/length", number)


def ask(client: HTTPConnection, method: str, target: str, number: int, body: bytes | None = None) -> None:
    """One request, whose head is another for each number."""
    client.request(method, f"{target}?{number}", body, {"X-Number": str(number)})
    client.getresponse().read()


def leave_early(port: int, soak: Soak, ended: threading.Event) -> None:
    """Connect, send a part of something, take a part of the answer, leave."""
    request = b"GET /plain/large HTTP/1.1\r\nHost: h\r\n\r\n"
    while not ended.wait(0.02):
        cut = soak.left % (len(request) + 4)
        try:
            with socket.create_connection(("127.0.0.1", port), 5) as client:
                client.sendall(request[:cut])
                if cut >= len(request):
                    client.recv(1000)
        except OSError:
            pass
        soak.left += 1


def disturb(
    soak: Soak,
    daemon: Daemon,
    comfy: list[NamedServer],
    plain: list[NamedServer],
    seconds: float,
    luck: random.Random,
    directory: Path,
) -> None:
    """Something happens every second or so, until the time is up; all is well again at the end."""

    def kill(server: NamedServer) -> Callable[[], None]:
        server.kill()
        return server.start

    def stop(server: NamedServer) -> Callable[[], None]:
        server.stop()
        return server.go_on

    def reload(server: NamedServer) -> Callable[[], None]:
        order = [one for one in plain if one is not server]
        luck.shuffle(order)
        write_servers(directory, order)
        daemon.reload()
        return lambda: (write_servers(directory, plain), daemon.reload())[1]

    began = time.monotonic()
    told = began
    while (now := time.monotonic()) < began + seconds:
        act = luck.choice([kill, kill, stop, reload, reload])
        server = luck.choice(plain if act is reload else [*comfy, *plain])
        soak.chaos[act.__name__] = soak.chaos.get(act.__name__, 0) + 1
        undo = act(server)
        time.sleep(luck.uniform(0.1, 1.0))
        undo()
        time.sleep(luck.uniform(0.2, 1.0))
        soak.samples.append(Sample(now - began, daemon.memory, len(daemon.descriptors())))
        assert soak.prompts is not None
        soak.prompts.sample(now - began)
        if now > told + 10:
            told = now
            print(progress(soak, seconds), file=sys.stderr, flush=True)


def progress(soak: Soak, seconds: float) -> str:
    """One line about how it goes."""
    last = soak.samples[-1]
    answers = sum(one.count for one in soak.loads.values())
    lost = sum(lost_of(one) for name, one in soak.loads.items() if name in SAFE)
    return (
        f"{last.at:5.0f} of {seconds:.0f} s: {answers} answers, {lost} lost, "
        f"{soak.sockets.messages} messages, {last.memory / 2**20:.1f} MiB, {last.descriptors} descriptors"
    )


def left_behind(daemon: Daemon) -> str:
    """What is alive in a daemon without clients and servers, but for what is known of servers; or nothing."""
    try:
        daemon.assert_at_rest(but_for=KEPT)
    except AssertionError as error:
        return str(error).splitlines()[0]
    return ""


def lost_of(one: Load) -> int:
    """Requests that came to nothing."""
    return len(one.cut) + sum(count for status, count in one.answers.items() if status != 200)


def slope(samples: list[Sample]) -> float:
    """Octets a second by which memory grows: the median of the slopes between samples (Theil, Sen)."""
    pairs = [(a, b) for n, a in enumerate(samples) for b in samples[n + 1 :] if b.at > a.at]
    return statistics.median((b.memory - a.memory) / (b.at - a.at) for a, b in pairs) if pairs else 0.0


def summary(soak: Soak) -> dict[str, Any]:
    """All figures, and whether they are as they should be."""
    end = soak.samples[-1].at
    settled = [sample for sample in soak.samples if sample.at >= end * SETTLED]
    growth = slope(settled) * (end - settled[0].at)
    loads = {
        name: {
            "answers": one.count,
            "statuses": {str(status): count for status, count in sorted(one.answers.items())},
            "cut": len(one.cut),
            "reopened": one.reopened,
            "may_be_tried_again": name in SAFE,
            "examples": one.cut[:3],
        }
        for name, one in soak.loads.items()
    }
    lost = sum(lost_of(soak.loads[name]) for name in SAFE)
    assert soak.prompts is not None
    prompts = soak.prompts.summary()
    return {
        "passed": not lost and growth < MAY_GROW and not soak.left_behind and prompts["passed"],
        "seconds": round(end, 1),
        "loads": loads,
        "lost_that_may_be_tried_again": lost,
        "websockets": vars(soak.sockets),
        "clients_that_left_early": soak.left,
        "chaos": soak.chaos,
        "memory": {
            "settled": settled[0].memory,
            "end": settled[-1].memory,
            "growth_by_slope": round(growth),
        },
        "descriptors": {"most": max(one.descriptors for one in soak.samples)},
        "left_behind": soak.left_behind,
        "prompts": prompts,
    }


def table(result: dict[str, Any]) -> str:
    """The figures for a person."""
    lines = [f"{'load':12} {'answers':>8} {'cut':>5} {'reopened':>9}  statuses"]
    for name, one in result["loads"].items():
        statuses = ", ".join(f"{count} x {status}" for status, count in one["statuses"].items())
        lines.append(f"{name:12} {one['answers']:8} {one['cut']:5} {one['reopened']:9}  {statuses}")
    memory = {name: f"{octets / 2**20:.1f} MiB" for name, octets in result["memory"].items()}
    lines += [
        "",
        f"WebSockets: {', '.join(f'{count} {name}' for name, count in result['websockets'].items())}",
        f"Chaos: {', '.join(f'{count} x {name}' for name, count in result['chaos'].items())}; "
        f"{result['clients_that_left_early']} clients left early",
        f"Lost though it might have been tried again: {result['lost_that_may_be_tried_again']}",
        f"Memory: {memory['settled']} when settled, {memory['end']} at the end; "
        f"growth {memory['growth_by_slope']}",
        f"Left behind: {result['left_behind'] or 'nothing'}",
        f"Prompts: {', '.join(f'{what} {figure}' for what, figure in result['prompts'].items())}",
        f"{'passed' if result['passed'] else 'FAILED'} in {result['seconds']:.0f} s",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
