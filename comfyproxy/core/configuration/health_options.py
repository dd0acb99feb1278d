"""The options of health: they fill `comfyproxy.core.config.HealthConfig`, field by field."""

from comfyproxy.core.config import HealthConfig
from comfyproxy.core.configuration.kinds import (
    COUNT,
    DURATION,
    NUMBER,
    PERCENT,
    PERIOD,
    PROBE,
    STATUSES,
    Kind,
)
from comfyproxy.core.configuration.option import HEALTH, Option

_DEFAULTS = HealthConfig()


def _option(name: str, kind: Kind, doc: str, field: str) -> Option:
    return Option(name, HEALTH, kind, doc, getattr(_DEFAULTS, field), for_pools=True)


HEALTH_OPTIONS = (
    Option(
        "probe",
        HEALTH,
        PROBE,
        "how to check servers: comfyui (GET /prompt), http:/PATH, tcp, or none"
        " (default: comfyui for comfyui, none for http and tcp)",
        for_pools=True,
    ),
    _option("probe-status", STATUSES, "statuses that http:/PATH may be answered with", "status"),
    _option("probe-interval", PERIOD, "between two checks of a server", "interval"),
    _option("probe-timeout", PERIOD, "for the answer to a check", "timeout"),
    _option("probe-rise", COUNT, "checks in a row that take a server that is down back", "rise"),
    _option("probe-fall", COUNT, "checks in a row that fail until a server is down", "fall"),
    _option(
        "eject-failures",
        NUMBER,
        "requests in a row that fail until a server is left out for a while; 0 is never",
        "eject_failures",
    ),
    _option("eject-time", PERIOD, "that it is left out; each time in a row twice as long", "eject_time"),
    _option("eject-share", PERCENT, "of a pool that may be left out at once", "eject_share"),
    _option(
        "panic-threshold",
        PERCENT,
        "when fewer servers are up than that, send requests to all of them",
        "panic_threshold",
    ),
    _option("slow-start", DURATION, "in which a server that came back reaches its whole share", "slow_start"),
)
