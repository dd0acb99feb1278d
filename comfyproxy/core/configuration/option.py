"""What one option is. `comfyproxy.core.configuration.options` has the table of them."""

from dataclasses import dataclass
from typing import Any

from comfyproxy.core.configuration.kinds import FLAG, Kind

VARIABLE_PREFIX = "COMFYPROXY_"

SERVERS = "Servers"
BALANCING = "Balancing"
HEALTH = "Health"
COMFYUI = "ComfyUI"
CLIENTS = "Clients"
HEADERS = "Headers"
LOGGING = "Logging"
TIMEOUTS = "Timeouts (0: none)"
LIMITS = "Limits"
SOURCES = "Sources"


@dataclass(frozen=True, slots=True)
class Option:
    """One option.

    ``default`` is None where nothing is the default, or where ``doc`` tells it. Options with the same
    ``group`` are set together: when a source gives one of them, weaker sources give none. ``for_pools`` and
    ``for_routes`` say that a pool or a route of tap.conf may set it for itself.
    """

    name: str
    section: str
    kind: Kind
    doc: str
    default: Any = None
    variable: str = ""
    repeatable: bool = False
    group: str = ""
    for_pools: bool = False
    for_routes: bool = False
    in_tap_conf: bool = True

    @property
    def key(self) -> str:
        """Its key in tap.conf, and its name in Python."""
        return self.name.replace("-", "_")

    @property
    def environment_variable(self) -> str:
        """The variable of the environment, or of ``.env``, that sets it."""
        return self.variable or VARIABLE_PREFIX + self.key.upper()

    @property
    def default_text(self) -> str:
        """The default as one would write it; empty if there is none."""
        if self.default is None:
            return ""
        values = self.default if self.repeatable else (self.default,)
        return " ".join(self.kind.show(value) for value in values)

    @property
    def help(self) -> str:
        """``doc``, and the default where it says something."""
        if self.kind is FLAG or not self.default_text:
            return self.doc
        return f"{self.doc} (default: {self.default_text})"
