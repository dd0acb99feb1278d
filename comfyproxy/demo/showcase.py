"""``comfyproxy demo``: simulated servers behind a real proxy, a first prompt shown in the terminal, a
page to open."""

import sys
import tempfile
from typing import Any, cast

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn
from twisted.application.service import MultiService
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, ensureDeferred, maybeDeferred

from comfyproxy.demo.first_prompt import Failed, Finished, Queued, Report, Step, run_prompt
from comfyproxy.demo.server import SimulatedComfyUI, start_demo_servers, stop_all
from comfyproxy.service.daemon import ProxyService
from comfyproxy.service.sources import Sources

DEFAULT_PORT = 8080


class Demo(MultiService):
    """``count`` simulated servers, a proxy before them at ``port`` (0: any free one), and a first prompt.

    With ``then_stop`` the reactor is stopped once the prompt is through, for scripts and tests.
    ``has_run`` tells afterwards whether all of that came about, ``succeeded`` how the prompt went.
    """

    def __init__(
        self, reactor: Any, console: Console, count: int, port: int, then_stop: bool = False
    ) -> None:
        super().__init__()
        self._reactor = reactor
        self._console = console
        self._count = count
        self._port = port
        self._then_stop = then_stop
        self._servers: list[SimulatedComfyUI] = []
        self.has_run = True
        self.succeeded = False

    def startService(self) -> None:
        super().startService()
        # A port that is taken ends the demo at once, and a reactor that does not run yet cannot be stopped.
        self._reactor.callWhenRunning(lambda: ensureDeferred(self._show()).addErrback(self._failed))

    def stopService(self) -> "Deferred[None]":
        return ensureDeferred(self._stop())

    async def _stop(self) -> None:
        await maybeDeferred(super().stopService)
        servers, self._servers = self._servers, []
        await stop_all(servers)

    async def _show(self) -> None:
        console = self._console
        self._servers = await start_demo_servers(self._reactor, count=self._count)
        service = self._proxy_service()
        service.setServiceParent(self)
        (address,) = cast(tuple[IPv4Address], service.addresses)
        url = f"http://127.0.0.1:{address.port}/"
        for index, server in enumerate(self._servers):
            console.print(
                f"  simulated ComfyUI {index}: [bold]{server.name}[/] at {server.url}", highlight=False
            )
        console.print(f"  comfyproxy before them at [bold]{url}[/]\n", highlight=False)
        outcome = await self._first_prompt(url)
        if not self.running:
            return
        self._tell(outcome)
        if self._then_stop:
            self._reactor.stop()
            return
        console.print(
            f"\nOpen [bold]{url}[/] and press Run a few times, or in another terminal:", highlight=False
        )
        console.print(f"  curl -i {url}system_stats", highlight=False)
        console.print("Ctrl-C ends the demo.\n", highlight=False)

    def _proxy_service(self) -> ProxyService:
        options = {
            "url": [server.url for server in self._servers],
            "listen": [f"tcp:{self._port}:interface=127.0.0.1"],
            "access_log": "none" if self._then_stop else "routing",
        }
        # An empty directory: a .env or tap.conf that lies about is not meant for the demo.
        with tempfile.TemporaryDirectory() as nowhere:
            return ProxyService(self._reactor, Sources(options, {}, nowhere))

    async def _first_prompt(self, url: str) -> Finished | Failed:
        bar = Progress(
            TextColumn("  {task.description}"),
            BarColumn(),
            TextColumn("{task.fields[note]}"),
            console=self._console,
        )
        with bar:
            task = bar.add_task("first prompt", total=None, note="sending")

            def report(state: Report) -> None:
                if isinstance(state, Queued):
                    bar.update(task, note="queued")
                elif isinstance(state, Step):
                    bar.update(
                        task,
                        completed=state.value,
                        total=state.maximum,
                        note=f"step {state.value:g} of {state.maximum:g}",
                    )

            outcome = await run_prompt(self._reactor, url, report)
            if isinstance(outcome, Finished):
                bar.update(task, total=1, completed=1, note="done")
        return outcome

    def _tell(self, outcome: Finished | Failed) -> None:
        if isinstance(outcome, Failed):
            self._console.print(f"  [red]The first prompt failed:[/] {escape(outcome.reason)}")
            return
        self.succeeded = True
        for picture in outcome.pictures:
            self._console.print(
                f"  {picture.filename}, {len(picture.data)} octets, made by [bold]{picture.server}[/]",
                highlight=False,
            )

    def _failed(self, failure: Any) -> None:
        self.has_run = False
        if self.running:
            self._console.print(f"[red]The demo cannot run:[/] {escape(failure.getErrorMessage())}")
            self._reactor.stop()


def run_demo(count: int, port: int, then_stop: bool) -> int:
    """Run the demo in the foreground; returns the exit status of the process."""
    from comfyproxy.service.foreground import install_reactor, run_in_foreground

    reactor = install_reactor()
    demo = Demo(reactor, Console(file=sys.stdout), count, port, then_stop)
    status = run_in_foreground(reactor, lambda: demo, quiet=True)
    return status if demo.succeeded or (demo.has_run and not then_stop) else 1
