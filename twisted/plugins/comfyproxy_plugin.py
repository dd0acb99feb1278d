"""What ``twistd`` and ``twist`` find; comfyproxy itself is imported only when it is chosen."""

from twisted.application.reactors import Reactor
from twisted.application.service import ServiceMaker

service_maker = ServiceMaker(
    "comfyproxy",
    "comfyproxy.tap",
    "A load-balancing reverse proxy for pools of ComfyUI servers.",
    "comfyproxy",
)

reactor_installer = Reactor(
    "comfyproxy",
    "comfyproxy.proxy.reactor",
    "epoll with a shorter way from an event to its protocol; the default reactor where there is no epoll.",
)
