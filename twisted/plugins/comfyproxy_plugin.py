"""What `twistd comfyproxy` and `twist comfyproxy` find. It names comfyproxy.tap, which is imported only when chosen."""

from twisted.application.service import ServiceMaker

service_maker = ServiceMaker(
    "comfyproxy",
    "comfyproxy.tap",
    "A load-balancing reverse proxy for pools of ComfyUI servers.",
    "comfyproxy",
)
