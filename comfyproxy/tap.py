"""``twistd comfyproxy``: from the command line to a service. The composition root."""

import os
from typing import Any

from twisted.application.service import Service
from twisted.python.usage import UsageError

from comfyproxy.errors import ConfigError
from comfyproxy.service.daemon import ProxyService
from comfyproxy.service.descriptors import raise_limit
from comfyproxy.service.usage import TableOptions


class Options(TableOptions):
    """The options of the plugin: those of the one table."""

    longdesc = "Balances HTTP, WebSocket and TCP over a pool of ComfyUI servers, or of any other service."

    def postOptions(self) -> None:
        """Read every source now, where a mistake can still be told; raises `UsageError`."""
        self.read = self.sources(os.environ, os.getcwd())
        try:
            self.read.load()
        except ConfigError as error:
            raise UsageError(str(error)) from error


def makeService(options: Options, reactor: Any = None) -> Service:
    """The proxy as ``options`` want it, on ``reactor`` or the global one."""
    if reactor is None:
        from twisted.internet import reactor
    raise_limit()
    return ProxyService(reactor, options.read)
