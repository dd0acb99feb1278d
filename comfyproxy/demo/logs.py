"""The server's own log, as the page's terminal panel shows it (/internal/logs)."""

from collections import deque
from datetime import UTC, datetime
from typing import Any

from comfyproxy.demo.clients import Clients
from comfyproxy.demo.events import Event

TERMINAL_SIZE = {"cols": 80, "rows": 24}


class Logs:
    """The last lines, and the clients that want to see each new one."""

    def __init__(self, clients: Clients) -> None:
        self._clients = clients
        self.entries: deque[dict[str, str]] = deque(maxlen=300)
        self.subscribers: set[str] = set()

    def add(self, now: float, text: str) -> None:
        """One more line; subscribers that are not connected here are struck off, as ComfyUI does."""
        entry = {"t": datetime.fromtimestamp(now, UTC).replace(tzinfo=None).isoformat(), "m": text + "\n"}
        self.entries.append(entry)
        self.subscribers = {sid for sid in self.subscribers if sid in self._clients}
        data: dict[str, Any] = {"entries": [entry], "size": TERMINAL_SIZE}
        for sid in self.subscribers:
            self._clients.publish(Event("logs", data), sid)
