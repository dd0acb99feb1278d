"""``comfyproxy run``, as a process."""

import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import IO, Any
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals end it")


class Running:
    """A ``comfyproxy run`` with these arguments, its standard error read line by line."""

    def __init__(self, directory: Path, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "comfyproxy.cli", "run", *arguments],
            cwd=directory,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            # A shell has what it starts in the background ignore SIGINT, and so would this.
            preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
        )

    @property
    def errors(self) -> IO[str]:
        assert self.process.stderr is not None
        return self.process.stderr

    def port(self) -> int:
        """Where it listens, once it says so."""
        for line in self.errors:
            if match := re.search(r"Listening on 127\.0\.0\.1:([0-9]+)", line):
                port = int(match[1])
                self._await_answers(port)
                return port
        raise AssertionError("it ended without listening")

    @staticmethod
    def _await_answers(port: int) -> None:
        """Until its reactor runs, signals still mean what they mean to Python."""
        with socket.create_connection(("127.0.0.1", port), timeout=20) as client:
            client.sendall(b"nonsense\r\n\r\n")
            assert client.recv(12) == b"HTTP/1.1 400"

    def end(self, number: int = signal.SIGTERM) -> tuple[int, str]:
        """Its exit status and what it printed."""
        self.process.send_signal(number)
        printed, _ = self.process.communicate(timeout=20)
        return self.process.returncode, printed


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Callable[..., Running]]:
    """Start one in an empty directory; whatever still runs afterwards is killed."""
    started: list[Running] = []

    def start(*arguments: str) -> Running:
        started.append(Running(tmp_path, *arguments))
        return started[-1]

    yield start
    for running in started:
        running.process.kill()
        running.process.communicate()


@pytest.fixture
def backend() -> Iterator[str]:
    """The address of a listening socket that nobody answers at."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"127.0.0.1:{listening.getsockname()[1]}"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_listens_until_it_is_told_to_stop(run: Callable[..., Running], backend: str, number: int) -> None:
    running = run("--url", f"http://{backend}", "--listen", "tcp:0:interface=127.0.0.1")
    assert running.port() > 0
    status, _ = running.end(number)
    assert status == 0


@pytest.mark.parametrize("plain", [[], ["--plain-io"]])
def test_it_ends_in_the_middle_of_an_upload(run: Callable[..., Running], plain: list[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(20)
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        options = ("--access-log", "combined", "--drain-timeout", "0", "--probe", "none", *plain)
        running = run("--url", url, "--listen", "tcp:0:interface=127.0.0.1", *options)
        with socket.create_connection(("127.0.0.1", running.port()), timeout=20) as client:
            client.sendall(b"POST /upload HTTP/1.1\r\nHost: a\r\nContent-Length: 9000000\r\n\r\n")
            backend, _ = listening.accept()
            with backend:
                client.sendall(b"x" * 500_000)
                backend.settimeout(20)
                received = 0
                while received < 500_000:
                    received += len(backend.recv(65536))
                status, printed = running.end()
    assert status == 0
    # What is cut off by that is logged too.
    assert printed.count('"POST /upload HTTP/1.1" 503 ') == 1


@pytest.fixture
def asked(run: Callable[..., Running]) -> Iterator[Any]:
    """Starts one with a request under way: the process, its client and the connection to its server."""
    with ExitStack() as opened:

        def ask(*arguments: str) -> tuple[Running, socket.socket, socket.socket]:
            listening = opened.enter_context(socket.create_server(("127.0.0.1", 0)))
            url = f"http://127.0.0.1:{listening.getsockname()[1]}"
            running = run("--app", "http", "--url", url, "--listen", "tcp:0:interface=127.0.0.1", *arguments)
            client = opened.enter_context(socket.create_connection(("127.0.0.1", running.port()), timeout=20))
            client.sendall(b"POST /prompt HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n{}")
            listening.settimeout(20)
            server = opened.enter_context(listening.accept()[0])
            server.settimeout(20)
            while not server.recv(65536).endswith(b"{}"):
                pass
            return running, client, server

        yield ask


def until(running: Running, words: str) -> str:
    """The next line of its log with these words."""
    for line in running.errors:
        if words in line:
            return line
    raise AssertionError(f"it ended without saying {words!r}")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_told_to_stop_it_answers_what_runs_and_takes_nothing_new(asked: Any, number: int) -> None:
    running, client, server = asked()
    port = client.getpeername()[1]
    running.process.send_signal(number)
    assert "Draining: 1 request, up to 30 s." in until(running, "Draining")
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=20)
    running.process.send_signal(signal.SIGHUP)
    assert "Nothing is reloaded. The proxy is stopping." in until(running, "reload")
    server.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
    answer = b"".join(iter(lambda: client.recv(65536), b""))
    assert b"\r\nConnection: close\r\n" in answer
    assert answer.endswith(b"ok")
    _, errors = running.process.communicate(timeout=20)
    assert (running.process.returncode, "Cut off" in errors) == (0, False)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_told_again_it_waits_no_longer(asked: Any, number: int) -> None:
    running, client, _ = asked()
    running.process.send_signal(signal.SIGTERM)
    until(running, "Draining")
    running.process.send_signal(number)
    assert client.recv(65536).startswith(b"HTTP/1.1 503 ")
    _, errors = running.process.communicate(timeout=20)
    assert running.process.returncode == 0
    assert "Cut off what still ran: 1 request." in errors
    assert "Traceback" not in errors


def test_the_drain_ends_in_time(asked: Any) -> None:
    running, client, _ = asked("--drain-timeout", "200ms")
    status, _ = running.end()
    assert (status, client.recv(65536)[:13]) == (0, b"HTTP/1.1 503 ")


def test_the_console_line_is_printed_as_it_is(run: Callable[..., Running]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        closed = free.getsockname()[1]
    running = run("--url", f"http://127.0.0.1:{closed}", "--listen", "tcp:0:interface=127.0.0.1")
    with pytest.raises(HTTPError, match="503") as refused:
        urlopen(f"http://127.0.0.1:{running.port()}/", timeout=10)
    refused.value.close()
    _, printed = running.end()
    assert printed == f"[LoadBalancer] Routing request to http://127.0.0.1:{closed} (0/1)\n"


def test_a_taken_port_is_told_in_a_sentence(run: Callable[..., Running]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        running = run("--listen", f"tcp:{port}:interface=127.0.0.1")
        _, errors = running.process.communicate(timeout=20)
    assert running.process.returncode == 1
    said = f"Cannot listen on 127.0.0.1:{port}: Address already in use. Is another server running there?"
    assert errors.splitlines()[-1] == f"{said} See --listen."
    assert "Traceback" not in errors


def test_an_address_of_another_machine_is_no_other_server_s_fault(run: Callable[..., Running]) -> None:
    running = run("--listen", "tcp:0:interface=203.0.113.1")
    _, errors = running.process.communicate(timeout=20)
    assert running.process.returncode == 1
    said = "Cannot listen on 203.0.113.1:0: Cannot assign requested address. See --listen."
    assert errors.splitlines()[-1] == said


def test_an_endpoint_that_makes_no_sense_is_told_in_a_sentence(run: Callable[..., Running]) -> None:
    running = run("--listen", "ssl:0:privateKey=missing.pem")
    _, errors = running.process.communicate(timeout=20)
    assert running.process.returncode == 1
    assert errors.splitlines()[-1].startswith("--listen: cannot listen on 'ssl:0:privateKey=missing.pem': ")
    assert "Traceback" not in errors


def test_a_mistake_in_the_configuration_is_told_in_a_sentence(
    run: Callable[..., Running], tmp_path: Path
) -> None:
    (tmp_path / "servers.txt").write_text("http://gpu[8-1]:8188\n")
    running = run("--file", "servers.txt")
    _, errors = running.process.communicate(timeout=20)
    assert running.process.returncode == 1
    assert errors.startswith("servers.txt:1:")
    assert errors.count("\n") == 1
