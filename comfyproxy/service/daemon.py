"""The long-running proxy as a service: listens, re-reads its sources on SIGHUP, drains before it stops."""

from typing import Any

from twisted.application.service import MultiService
from twisted.internet.defer import Deferred, ensureDeferred, gatherResults, maybeDeferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IAddress, IListeningPort
from twisted.internet.protocol import Factory
from twisted.logger import Logger
from twisted.python.failure import Failure

from comfyproxy.core.balancing.backend import AdminState, Backend
from comfyproxy.core.balancing.changes import Changes
from comfyproxy.core.config import Config
from comfyproxy.errors import ConfigError, Stopping
from comfyproxy.proxy.accesslog import FORMATS
from comfyproxy.proxy.draining import Draining
from comfyproxy.proxy.listeners import HTTPListener
from comfyproxy.proxy.proxy import Proxy
from comfyproxy.proxy.proxyprotocol import ProxiedPorts
from comfyproxy.proxy.resolver import Resolver
from comfyproxy.proxy.tcp import TCPListener
from comfyproxy.proxy.transports import with_eager_writes
from comfyproxy.service.descriptors import possible_connections
from comfyproxy.service.health import HealthChecks, find_servers
from comfyproxy.service.output import Output, open_output
from comfyproxy.service.routing import Routing
from comfyproxy.service.signals import Signals
from comfyproxy.service.sources import Sources

MOST_LINES = 50
"""Lines of one reload's difference that the log shows."""


class ProxyService(MultiService):
    """A proxy that listens where its configuration says, for ``twistd`` or for any other `Application`.

    The sources are read as the service is made, so that a mistake is told at once, and again at each
    `reload`. Raises `ConfigError` where one does not parse; starting it raises `CannotListenError`, or
    `ConfigError` where an endpoint or the access log cannot be had at all.
    """

    log = Logger(namespace="comfyproxy")

    def __init__(self, reactor: Any, sources: Sources) -> None:
        super().__init__()
        self._sources = sources
        self._loaded = sources.load()
        self._reactor = reactor if self.config.plain_io else with_eager_writes(reactor)
        self._routing = Routing(self._reactor)
        self._names = Resolver(self._reactor)
        self._checks = HealthChecks(self._reactor, self._close_idle, self._names)
        self._ports: list[IListeningPort] = []
        self._output: Output | None = None
        self._signals = Signals()
        self._draining: Draining | None = None
        self._wait_for_the_end: list[Deferred[None]] = []
        self.proxy: Proxy | None = None

    @property
    def config(self) -> Config:
        """The configuration in force."""
        return self._loaded.config

    @property
    def addresses(self) -> tuple[IAddress, ...]:
        """Where it listens."""
        return tuple(port.getHost() for port in self._ports)

    def privilegedStartService(self) -> None:
        """Listen: ports below 1024 are to be had now only."""
        self._begin()
        super().privilegedStartService()

    def startService(self) -> None:
        """Listen, if that has not begun, and answer SIGHUP."""
        self._begin()
        self._signals.catch("SIGHUP", self._hung_up)
        super().startService()

    def stopService(self) -> "Deferred[None]":
        """Listen no more, let what runs end (``--drain-timeout``), close; fires when nothing is left open.

        Meanwhile SIGTERM and SIGINT, and a second call, mean that it waits no longer.
        """
        if self._draining is None:
            return ensureDeferred(self._stop())
        self._draining.cut()
        stopped: Deferred[None] = Deferred()
        self._wait_for_the_end.append(stopped)
        return stopped

    def reload(self) -> dict[str, Changes]:
        """Read all sources anew and go by them at once; returns the difference of each pool.

        Servers that stay keep their state and connections. Raises `ConfigError` where a source does not
        parse, and `Stopping` in a drain; then nothing has changed.
        """
        if self._draining is not None:
            raise Stopping("The proxy is stopping.")
        loaded = self._sources.load()
        output = _open(loaded.config.access_log_file) if self.proxy is not None else None
        if _how_it_listens(loaded.config) != _how_it_listens(self.config):
            self.log.warn("Where or how to listen has changed: that takes a restart.")
        self._loaded = loaded
        self._warn()
        changes = self._routing.apply(loaded.config)
        if self.proxy is not None and output is not None:
            self._adopt(self.proxy, loaded.config, output)
            self.proxy.forget_removed()
            self._checks.follow(self._routing.watched(loaded.config))
        for name, difference in changes.items():
            self._log_changes(name, difference)
        return changes

    def set_state(self, server: str, state: AdminState) -> tuple[Backend, ...]:
        """Let ``server`` be in ``state``, in every pool that has it, until it is told otherwise.

        It is a server's URL (also with ranges) or its name; reloads keep the state. Returns the servers that
        were meant; raises `UnknownServer` where there is none, and then nothing has changed.
        """
        pools = [self._routing.balancer(pool).pool for pool in self.config.pools.values()]
        found = find_servers(pools, server)
        for pool, backend in found:
            pool.set_admin(backend, state, self._reactor.seconds())
        return tuple(backend for _, backend in found)

    def _close_idle(self, backend: Backend) -> None:
        if self.proxy is not None:
            self.proxy.close_idle(backend)

    def _begin(self) -> None:
        if self.proxy is not None:
            return
        config = self.config
        self._warn()
        output = _open(config.access_log_file)
        self._routing.apply(config)
        self.proxy = proxy = Proxy(
            self._reactor, self._routing.table, splices=not config.plain_io, names=self._names
        )
        self._adopt(proxy, config, output)
        self._listen(proxy, config)
        for name, pool in config.pools.items():
            self.log.info("Pool {name}: {size} servers.", name=name, size=len(pool.addresses))
        self._checks.follow(self._routing.watched(config))

    def _adopt(self, proxy: Proxy, config: Config, output: Output) -> None:
        """Let ``proxy`` go by ``config`` in all that can change while it runs, and log to ``output``."""
        proxy.routes = self._routing.table
        proxy.limits = config.limits
        possible = possible_connections()
        proxy.admission.adopt(config.limits, possible)
        if 0 < possible < config.limits.connections:
            self.log.warn(
                "The file descriptors are enough for {possible} clients, not for {wanted}; raise the limit.",
                possible=possible,
                wanted=config.limits.connections,
            )
        proxy.timeouts = config.timeouts
        proxy.request_ids = config.request_ids
        proxy.debug = config.debug
        proxy.names.interval = config.resolve_interval
        proxy.names.servers = config.name_servers
        proxy.trust(config.trusted_proxies)
        proxy.forwarding = config.forwarding_headers
        proxy.log.flush()
        proxy.log = FORMATS[config.access_log](self._reactor, output.write)
        if self._output is not None:
            self._output.close()
        self._output = output
        if config.websocket == "messages" and proxy.bridges is None:
            # autobahn is imported only where it is used: it takes a third of the start-up time.
            from comfyproxy.proxy.websockets import Bridges

            proxy.bridges = Bridges(self._reactor)
        elif config.websocket != "messages":
            proxy.bridges = None
        if proxy.bridges is not None:
            proxy.bridges.max_message = config.limits.message
        proxy.background.follow(self._routing.balancers)

    def _listen(self, proxy: Proxy, config: Config) -> None:
        factory: Factory = TCPListener(proxy) if config.tcp else HTTPListener(proxy)
        reactor = ProxiedPorts(self._reactor, proxy) if config.accept_proxy_protocol else self._reactor
        for description in config.listen:
            self._listen_at(reactor, description, factory)

    def _listen_at(self, reactor: Any, description: str, factory: Factory) -> None:
        failures: list[Failure] = []
        listening = maybeDeferred(lambda: serverFromString(reactor, description).listen(factory))
        listening.addCallbacks(self._listening, failures.append)
        for failure in failures:
            if failure.check(CannotListenError):
                failure.raiseException()
            # The parsers of endpoints raise whatever they come across: ValueError, IndexError, OSError ...
            raise ConfigError(f"cannot listen on {description!r}: {failure.getErrorMessage()}", "--listen")

    def _listening(self, port: IListeningPort) -> None:
        self._ports.append(port)
        assert self.proxy is not None
        self.proxy.admission.gate.add(port)
        self.log.info("Listening on {address}.", address=_readable(port.getHost()))

    def _warn(self) -> None:
        for warning in self._loaded.warnings:
            self.log.warn("{warning}", warning=warning)

    def _log_changes(self, name: str, changes: Changes) -> None:
        self.log.info("Pool {name}: {summary}.", name=name, summary=changes.summary())
        lines = list(changes.lines())
        for line in lines[:MOST_LINES]:
            self.log.info("  {line}", line=line)
        if len(lines) > MOST_LINES:
            self.log.info("  and {count} more", count=len(lines) - MOST_LINES)

    def _hung_up(self, *ignored: object) -> None:
        self._reactor.callFromThread(self._reload_or_say_why_not)

    def _reload_or_say_why_not(self) -> None:
        try:
            self.reload()
        except (ConfigError, OSError) as error:
            self.log.error("Nothing changes, the new configuration has a mistake: {error}", error=error)
        except Stopping as error:
            self.log.warn("Nothing is reloaded. {error}", error=error)

    async def _stop(self) -> None:
        if self.proxy is not None:
            self._draining = self.proxy.drain(self.config.drain_timeout)
            for name in ("SIGTERM", "SIGINT"):
                self._signals.catch(name, self._told_again)
        ports, self._ports = self._ports, []
        await gatherResults([maybeDeferred(port.stopListening) for port in ports])
        if self._draining is not None:
            await self._draining.run()
        await maybeDeferred(super().stopService)
        self._checks.stop()
        if self.proxy is not None:
            await self.proxy.close()
            self.proxy = None
        await self._routing.stop()
        if self._output is not None:
            self._output.close()
            self._output = None
        self._signals.release()
        self._draining = None
        waiting, self._wait_for_the_end = self._wait_for_the_end, []
        for stopped in waiting:
            stopped.callback(None)

    def _told_again(self, *ignored: object) -> None:
        if self._draining is not None:
            self._reactor.callFromThread(self._draining.cut)


def _how_it_listens(config: Config) -> tuple[object, ...]:
    return config.listen, config.tcp, config.accept_proxy_protocol


def _open(path: str) -> Output:
    try:
        return open_output(path)
    except OSError as error:
        raise ConfigError(f"{path} cannot be opened: {error.strerror}", "--access-log-file") from error


def _readable(address: Any) -> str:
    host, port = getattr(address, "host", None), getattr(address, "port", None)
    if host is None:
        return str(address)
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
