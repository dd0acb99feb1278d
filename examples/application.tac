# A pool of servers as a service of an Application, reloaded on SIGHUP from the file that names them:
#
#     SERVERS=servers.txt twistd -ny examples/application.tac

import os
import signal
from pathlib import Path

from twisted.application.internet import StreamServerEndpointService
from twisted.application.service import Application
from twisted.internet import reactor
from twisted.internet.endpoints import serverFromString
from twisted.logger import Logger

from comfyproxy.core.configuration.addresses import parse_text_file
from comfyproxy.errors import ConfigError
from comfyproxy.web.resource import RoundRobinResource
from comfyproxy.web.streaming import StreamingSite

log = Logger(namespace="application")
servers = Path(os.environ.get("SERVERS", "servers.txt")).resolve()


def read():
    return parse_text_file(servers.read_text(), servers.name).addresses


def reload(*ignored):
    try:
        log.info("{servers}: {changes}", servers=servers, changes=pool.reload(read()).summary())
    except (ConfigError, OSError) as error:
        log.error("Nothing changes: {error}", error=error)


pool = RoundRobinResource(read(), reactor=reactor)
reactor.addSystemEventTrigger("before", "shutdown", pool.stop)
reactor.callWhenRunning(signal.signal, signal.SIGHUP, lambda *_: reactor.callFromThread(reload))

application = Application("servers")
endpoint = serverFromString(reactor, os.environ.get("LISTEN", "tcp:8080:interface=127.0.0.1"))
StreamServerEndpointService(endpoint, StreamingSite(pool)).setServiceParent(application)
