"""What a request makes the interpreter do, counted: a measure of cost that no slow or busy machine changes.

    python -m benchmarks.calls SCENARIO [--top 25] [--json]

A proxy as ``comfyproxy run`` makes it serves one client on the loopback. Once its connections stand, every
call of a Python function and of one in C is counted in the reactor's thread; client and backend are in other
threads. Time is another matter: a call in C may take long, and work without calls is not seen. But what makes
a request in Python dearer nearly always adds calls.
"""

import argparse
import json
import socket
import sys
import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from types import CodeType, FrameType
from typing import Any

from benchmarks.client import read_answer, request
from benchmarks.works import BROWSER, SMALL_PATH

HERE = "127.0.0.1"
WARM_UP = 30
REQUESTS = 200
ANSWER = (
    b"HTTP/1.1 200 OK\r\nServer: nginx/1.22.1\r\nDate: Sun, 22 Nov 2026 12:00:00 GMT\r\n"
    b"Content-Type: application/json\r\nContent-Length: 39\r\nConnection: keep-alive\r\n\r\n"
    b'["checkpoints", "loras", "vae", "unet"]'
)
SYSTEM_CALLS = {f"socket.{name}" for name in ("send", "sendmsg", "recv", "recv_into")} | {
    f"epoll.{name}" for name in ("poll", "modify", "register", "unregister")
}


@dataclass(frozen=True)
class Scenario:
    """One way to ask: the options of the proxy, and the fields of the request behind ``Host``.

    In ``target`` and ``fields`` stands ``{number}`` for what is different in each request.
    """

    options: Sequence[str]
    target: str = SMALL_PATH
    fields: Sequence[str] = ()


VARIED_PATH = SMALL_PATH + "?rand={number}"
QUIET = ("--access-log", "none")
CONSOLE = ("--access-log", "routing", "--access-log-file", "/dev/null")

SCENARIOS = {
    "plain": Scenario(("--app", "http", *QUIET)),
    "console": Scenario(("--app", "http", *CONSOLE)),
    "comfyui": Scenario(CONSOLE),
    "browser": Scenario(CONSOLE, VARIED_PATH, BROWSER),
    "strangers": Scenario(CONSOLE, VARIED_PATH, (*BROWSER, "Cookie: visitor={number}")),
}
"""A small keep-alive GET: to any servers without a log; with the console line; with the router for ComfyUI
too; with a browser's 13 fields and always another target; and always of another client, so that nothing helps
that is kept of earlier requests."""


@dataclass(frozen=True)
class Calls:
    """Calls for each request: of functions in Python, in C, and those in C that are system calls."""

    python: float
    c: float
    system: float
    top: Sequence[tuple[str, float]]

    @property
    def total(self) -> float:
        """All of them."""
        return self.python + self.c


class Counting:
    """Counts the calls of the thread in which `start` is called."""

    def __init__(self) -> None:
        self._python: Counter[CodeType] = Counter()
        self._c: Counter[str] = Counter()

    def start(self) -> None:
        """Count from now on."""
        sys.setprofile(self._see)

    def stop(self) -> None:
        """Count no more."""
        sys.setprofile(None)

    def _see(self, frame: FrameType, event: str, argument: Any) -> None:
        if event == "call":
            self._python[frame.f_code] += 1
        elif event == "c_call":
            self._c[getattr(argument, "__qualname__", None) or repr(argument)] += 1

    def result(self, requests: int, top: int) -> Calls:
        """What was counted, for one of ``requests``, with the ``top`` functions by calls."""
        named: Counter[str] = Counter()
        for code, count in self._python.items():
            named[f"{code.co_qualname} ({_place(code)})"] += count
        named.update(self._c)
        return Calls(
            sum(self._python.values()) / requests,
            sum(self._c.values()) / requests,
            sum(count for name, count in self._c.items() if name in SYSTEM_CALLS) / requests,
            [(name, count / requests) for name, count in named.most_common(top)],
        )


def _place(code: CodeType) -> str:
    parts = code.co_filename.replace("\\", "/").split("/")
    return "/".join(parts[-2:]) + f":{code.co_firstlineno}"


def count_calls(scenario: Scenario, top: int = 25) -> Calls:
    """Serve `REQUESTS` requests of ``scenario`` and count. It runs the reactor, so once in a process."""
    from comfyproxy.proxy.reactor import install

    install()
    from twisted.internet import reactor as installed

    from comfyproxy.tap import Options, makeService

    reactor: Any = installed
    backend = _run_backend()
    options = Options()
    listen = f"tcp:0:interface={HERE}"
    options.parseOptions(["--listen", listen, "--url", f"http://{HERE}:{backend}", *scenario.options])
    service: Any = makeService(options, reactor)
    counting = Counting()
    failures: list[BaseException] = []
    reactor.callWhenRunning(service.startService)
    reactor.addSystemEventTrigger("before", "shutdown", service.stopService)

    def ask() -> None:
        try:
            _ask(service.addresses[0].port, scenario, lambda act: _in_reactor(reactor, act), counting)
        except BaseException as error:
            failures.append(error)
        reactor.callFromThread(reactor.stop)

    reactor.callWhenRunning(lambda: threading.Thread(target=ask, daemon=True).start())
    reactor.run()
    if failures:
        raise failures[0]
    return counting.result(REQUESTS, top)


def _ask(port: int, scenario: Scenario, in_reactor: Any, counting: Counting) -> None:
    space = bytearray(4096)
    with socket.create_connection((HERE, port), timeout=30) as sock:
        for number in range(WARM_UP + REQUESTS):
            if number == WARM_UP:
                in_reactor(counting.start)
            target = scenario.target.format(number=number)
            fields = [field.replace("{number}", str(number)) for field in scenario.fields]
            sock.sendall(request("GET", target, port, *fields))
            read_answer(sock, space)
        in_reactor(counting.stop)


def _in_reactor(reactor: Any, act: Any) -> None:
    """Have ``act`` done in the reactor's thread, and wait for it."""
    done = threading.Event()
    reactor.callFromThread(act)
    reactor.callFromThread(done.set)
    done.wait(30)


def _run_backend() -> int:
    """A backend in threads of its own; returns its port."""
    listening = socket.create_server((HERE, 0))

    def serve(sock: socket.socket) -> None:
        data = b""
        while more := sock.recv(65536):
            data += more
            while b"\r\n\r\n" in data:
                _, _, data = data.partition(b"\r\n\r\n")
                sock.sendall(ANSWER)

    def accept() -> None:
        while True:
            sock, _ = listening.accept()
            threading.Thread(target=serve, args=(sock,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    port: int = listening.getsockname()[1]
    return port


def report(name: str, calls: Calls) -> str:
    """What was counted, for people."""
    lines = [
        f"{name}: {calls.total:.1f} calls a request: {calls.python:.1f} in Python, {calls.c:.1f} in C,"
        f" {calls.system:.1f} of these system calls"
    ]
    return "\n".join([*lines, *(f"  {count:6.2f}  {what}" for what, count in calls.top)])


def main(arguments: Sequence[str] | None = None) -> None:
    """Count one scenario and print it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.calls", description=__doc__)
    parser.add_argument("scenario", choices=list(SCENARIOS))
    parser.add_argument("--top", type=int, default=25, metavar="N", help="functions to show (default: 25)")
    parser.add_argument("--json", action="store_true", help="for programs")
    options = parser.parse_args(arguments)
    calls = count_calls(SCENARIOS[options.scenario], options.top)
    print(json.dumps(asdict(calls)) if options.json else report(options.scenario, calls))


if __name__ == "__main__":
    main()
