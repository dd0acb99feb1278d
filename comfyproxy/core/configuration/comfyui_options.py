"""The options of placement ``prompt``: they fill `comfyproxy.core.config.ComfyUIConfig`, field by field."""

from comfyproxy.core.config import ComfyUIConfig
from comfyproxy.core.configuration.kinds import FLAG, SERVER, choice
from comfyproxy.core.configuration.option import COMFYUI, Option

_DEFAULTS = ComfyUIConfig()

COMFYUI_OPTIONS = (
    Option(
        "requeue",
        COMFYUI,
        FLAG,
        "run a prompt that ran on a server as it failed again on another, once; without it the prompt ends"
        " with an error",
        _DEFAULTS.requeue,
        for_pools=True,
    ),
    Option(
        "queue-status",
        COMFYUI,
        choice("own", "pool"),
        "how many prompts a client is told that are left: its own, or those of all",
        _DEFAULTS.queue_status,
        for_pools=True,
    ),
    Option(
        "home",
        COMFYUI,
        SERVER,
        "the URL or name of the server that keeps settings and saved workflows"
        " (default: the first that is ready)",
        for_pools=True,
    ),
    Option(
        "replicate-uploads",
        COMFYUI,
        FLAG,
        "bring uploaded files to every server at once, not only to those whose prompts need them",
        _DEFAULTS.replicate_uploads,
        for_pools=True,
    ),
)
