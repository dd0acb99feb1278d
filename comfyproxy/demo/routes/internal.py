"""/internal: what only the page asks for. A sub-application in ComfyUI, so never under /api."""

from collections.abc import Iterator

from comfyproxy.demo.files import FOLDERS
from comfyproxy.demo.logs import TERMINAL_SIZE
from comfyproxy.demo.machine import Machine
from comfyproxy.demo.routing import Answer, Asked, Malformed, Route, json_answer


class InternalRoutes:
    """Logs, folders and what is in them, of this very process."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine

    def routes(self) -> Iterator[Route]:
        yield Route("GET", "/internal/logs", self.get_logs, prefixed=False)
        yield Route("GET", "/internal/logs/raw", self.get_raw_logs, prefixed=False)
        yield Route("PATCH", "/internal/logs/subscribe", self.patch_subscription, prefixed=False)
        yield Route("GET", "/internal/folder_paths", self.get_folder_paths, prefixed=False)
        yield Route("GET", "/internal/files/{folder}", self.get_files, prefixed=False)

    def get_logs(self, asked: Asked) -> Answer:
        return json_answer("".join(f"{entry['t']} - {entry['m']}" for entry in self._machine.logs.entries))

    def get_raw_logs(self, asked: Asked) -> Answer:
        return json_answer({"entries": list(self._machine.logs.entries), "size": TERMINAL_SIZE})

    def patch_subscription(self, asked: Asked) -> Answer:
        """A client wants each new line from now on, or no longer; its socket must be on this process."""
        body = asked.json_object()
        client_id = body.get("clientId")
        if not isinstance(client_id, str) or "enabled" not in body:
            raise Malformed("clientId or enabled is missing")
        if body["enabled"]:
            self._machine.logs.subscribers.add(client_id)
        else:
            self._machine.logs.subscribers.discard(client_id)
        return Answer()

    def get_folder_paths(self, asked: Asked) -> Answer:
        return json_answer(
            {folder: [f"/demo/models/{folder}"] for folder in self._machine.installation.models}
        )

    def get_files(self, asked: Asked) -> Answer:
        folder = asked.found["folder"]
        if folder not in FOLDERS:
            return json_answer({"error": "Invalid directory type"}, 400)
        newest_first = sorted(self._machine.files.listing(folder), key=lambda stored: -stored.modified)
        return json_answer([stored.name for stored in newest_first])
