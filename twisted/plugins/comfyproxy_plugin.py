"""What `twistd comfyproxy` and `twist comfyproxy` find; comfyproxy.tap is imported only when it is chosen."""

from twisted.application.service import ServiceMaker

service_maker = ServiceMaker(
    "comfyproxy",
    "comfyproxy.tap",
    "A load-balancing reverse proxy for pools of ComfyUI servers.",
    "comfyproxy",
)
