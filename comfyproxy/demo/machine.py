"""One simulated ComfyUI without its network: all it remembers, and the worker on its clock."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from twisted.internet.interfaces import IReactorTime

from comfyproxy.demo import events
from comfyproxy.demo.clients import Clients
from comfyproxy.demo.execution import Executor
from comfyproxy.demo.files import Files
from comfyproxy.demo.logs import Logs
from comfyproxy.demo.nodes import NODES, Node
from comfyproxy.demo.queue import PromptQueue
from comfyproxy.demo.userdata import UserData
from comfyproxy.demo.worker import Worker

MODELS: Mapping[str, Sequence[str]] = {
    "checkpoints": ("demo.safetensors",),
    "loras": (),
    "vae": (),
    "embeddings": (),
    "upscale_models": (),
}


@dataclass(frozen=True, slots=True)
class Installation:
    """What one server is: its name and colour, what it can run, and which ComfyUI's manners it has.

    ``jobs_api`` False is a server older than 0.6, without /api/jobs; ``uuid_check`` False one older than
    0.25, that takes any prompt_id; ``interrupt_by_id`` False one older than 0.3.57, that interrupts whatever
    runs. ``origin_check`` False is --enable-cors-header. ``max_upload_size`` is in bytes. ``hue`` is from 0
    to 1.
    """

    name: str
    hue: float
    jobs_api: bool = True
    uuid_check: bool = True
    interrupt_by_id: bool = True
    origin_check: bool = True
    max_upload_size: int = 100 * 2**20
    nodes: Mapping[str, type[Node]] = field(default_factory=lambda: NODES)
    models: Mapping[str, Sequence[str]] = field(default_factory=lambda: MODELS)

    @property
    def features(self) -> dict[str, object]:
        """What GET /features and the WebSocket's feature_flags say."""
        return {
            "supports_preview_metadata": True,
            "supports_model_type_tags": True,
            "max_upload_size": self.max_upload_size,
            "extension": {"manager": {"supports_v4": True}},
            "node_replacements": True,
            "assets": False,
        }


class Machine:
    """One server, put together. ``clock`` gives the time (seconds since the epoch) and the pauses."""

    def __init__(self, installation: Installation, clock: IReactorTime, speed: float = 1.0) -> None:
        self.installation = installation
        self._clock = clock
        self.number = 0
        self.files = Files()
        self.user = UserData()
        self.user_names = {"default": "default"}
        self.clients = Clients()
        self.logs = Logs(self.clients)
        self.queue = PromptQueue(self._queue_changed)
        self.executor = Executor(
            installation.name, installation.hue, installation.nodes, self.files, self.queue, self.clients
        )
        self.worker = Worker(clock, self.queue, self.executor, speed, self.log)

    def now(self) -> float:
        """Seconds since the epoch (or since whatever a test's clock began with)."""
        return self._clock.seconds()

    def log(self, text: str) -> None:
        """One line for the server's own log."""
        self.logs.add(self.now(), text)

    def _queue_changed(self) -> None:
        self.clients.publish(events.status(len(self.queue)), None)
