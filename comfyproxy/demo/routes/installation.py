"""What is installed: the page, node classes, models, and what the server says about itself."""

import platform
import sys
from collections.abc import Iterator, Sequence
from importlib.resources import files as package_files

from comfyproxy import __version__
from comfyproxy.demo.machine import Machine
from comfyproxy.demo.nodes import describe
from comfyproxy.demo.routing import Answer, Asked, Route, json_answer, text_answer

_GIB = 2**30


class InstallationRoutes:
    """The same on every server of one installation, except for the server's name."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._is = machine.installation
        self._page = package_files("comfyproxy.demo").joinpath("page.html").read_bytes()

    def routes(self) -> Iterator[Route]:
        yield Route("GET", "/", self.get_page, prefixed=False)
        yield Route("GET", "/index.html", self.get_page, prefixed=False)
        yield Route("GET", "/ws", self.get_socket)
        yield Route("GET", "/object_info", self.get_object_info)
        yield Route("GET", "/object_info/{name}", self.get_object_info_of_class)
        yield Route("GET", "/system_stats", self.get_system_stats)
        yield Route("GET", "/features", lambda asked: json_answer(self._is.features))
        yield Route(
            "GET", "/embeddings", lambda asked: json_answer(_stems(self._is.models.get("embeddings", ())))
        )
        yield Route("GET", "/models", lambda asked: json_answer(list(self._is.models)))
        yield Route("GET", "/models/{folder}", self.get_models)
        yield Route("GET", "/experiment/models", self.get_model_folders)
        yield Route("GET", "/experiment/models/{folder}", self.get_model_files)
        yield Route("GET", "/extensions", lambda asked: json_answer([]))
        yield Route("GET", "/i18n", lambda asked: json_answer({}))
        yield Route("GET", "/workflow_templates", lambda asked: json_answer({}))
        yield Route("GET", "/global_subgraphs", lambda asked: json_answer({}))
        yield Route("GET", "/global_subgraphs/{id}", lambda asked: json_answer(None))
        yield Route("GET", "/node_replacements", lambda asked: json_answer({}))
        yield Route("GET", "/docs/{name}/en.md", self.get_docs, prefixed=False)
        yield Route("GET", "/templates/index.json", lambda asked: json_answer([]), prefixed=False)
        for method in ("GET", "POST", "PUT", "DELETE"):
            yield Route(method, "/api/assets", self.assets_disabled, prefixed=False)
            yield Route(method, "/api/assets/{rest*}", self.assets_disabled, prefixed=False)
        yield Route("GET", "/api/tags", self.assets_disabled, prefixed=False)

    def get_page(self, asked: Asked) -> Answer:
        fields = {
            "Content-Type": "text/html; charset=utf-8",
            "Cache-Control": "no-store, must-revalidate",
            "Pragma": "no-cache",
            "Expires": "0",
        }
        return Answer(200, self._page, fields)

    def get_socket(self, asked: Asked) -> Answer:
        """The WebSocket's address without an upgrade (aiohttp's words)."""
        given = asked.fields.get("upgrade")
        return text_answer(f'No WebSocket UPGRADE hdr: {given}\n Can "Upgrade" only to "WebSocket".', 400)

    def get_object_info(self, asked: Asked) -> Answer:
        return json_answer(
            {name: describe(name, node, self._machine.files) for name, node in self._is.nodes.items()}
        )

    def get_object_info_of_class(self, asked: Asked) -> Answer:
        name = asked.found["name"]
        node = self._is.nodes.get(name)
        return json_answer({name: describe(name, node, self._machine.files)} if node else {})

    def get_system_stats(self, asked: Asked) -> Answer:
        """The server's name is that of its only device, which is what the page shows."""
        system = {
            "os": sys.platform,
            "ram_total": 16 * _GIB,
            "ram_free": 12 * _GIB,
            "comfyui_version": "0.33.0",
            "required_frontend_version": "1.48.7",
            "python_version": platform.python_version(),
            "pytorch_version": f"none (simulated by comfyproxy {__version__})",
            "embedded_python": False,
            "argv": ["main.py"],
        }
        device = {
            "name": self._is.name,
            "type": "cpu",
            "index": None,
            "vram_total": 8 * _GIB,
            "vram_free": 6 * _GIB,
            "torch_vram_total": 8 * _GIB,
            "torch_vram_free": 6 * _GIB,
        }
        return json_answer({"system": system, "devices": [device]})

    def get_models(self, asked: Asked) -> Answer:
        models = self._is.models.get(asked.found["folder"])
        return Answer(404) if models is None else json_answer(list(models))

    def get_model_folders(self, asked: Asked) -> Answer:
        return json_answer(
            [{"name": folder, "folders": [f"/demo/models/{folder}"]} for folder in self._is.models]
        )

    def get_model_files(self, asked: Asked) -> Answer:
        models = self._is.models.get(asked.found["folder"])
        return (
            Answer(404)
            if models is None
            else json_answer([{"name": name, "pathIndex": 0} for name in models])
        )

    def get_docs(self, asked: Asked) -> Answer:
        node = self._is.nodes.get(asked.found["name"])
        if node is None:
            return Answer(404)
        text = f"# {node.display_name}\n\n{node.__doc__}\n"
        return Answer(200, text.encode(), {"Content-Type": "text/markdown"})

    def assets_disabled(self, asked: Asked) -> Answer:
        """ComfyUI without --enable-assets."""
        message = "Assets system is disabled. Start the server with --enable-assets to use this feature."
        return json_answer({"error": {"code": "SERVICE_DISABLED", "message": message, "details": {}}}, 503)


def _stems(names: Sequence[str]) -> list[str]:
    return [name.rpartition(".")[0] or name for name in names]
