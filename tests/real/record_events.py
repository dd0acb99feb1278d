"""Records what a real ComfyUI says over its WebSocket: `python tests/real/record_events.py FILE`.

Makes tests/vectors/comfyui-events/*.json: the tests of `comfyproxy.comfyui.fanin` play it back. For
a page (which says what it supports) and for a script (which does not) the messages of each prompt in turn.
Texts are strings, binary messages `{"binary": base64}`.
"""

import asyncio
import base64
import json
import shutil
import sys
import tempfile
import uuid
from pathlib import Path
from typing import Any

import aiohttp

sys.path.insert(0, str(Path(__file__).parent))

from real_peers.comfyui import ComfyUI
from real_peers.installed import COMFYUI_MAIN
from real_peers.processes import ServerProcesses

PACK = '''
from comfy.utils import ProgressBar
from PIL import Image
from server import PromptServer

class Steps:
    """Says all that a node may say while it works: progress, previews, texts, and an event of its own."""

    INPUT_TYPES = lambda: {
        "required": {"steps": ("INT", {}), "colour": ("INT", {}), "fails": ("BOOLEAN", {})},
        "hidden": {"node": "UNIQUE_ID"},
    }
    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "work"

    def work(self, steps, colour, fails, node):
        import time, torch
        server = PromptServer.instance
        bar = ProgressBar(steps, node_id=node)
        for step in range(steps):
            time.sleep(0.02)
            bar.update_absolute(step + 1, steps, ("JPEG", Image.new("RGB", (16, 16), colour + step), None))
            server.send_progress_text(f"step {step + 1}", node)
            server.send_sync("pack.step", {"node_id": node, "step": step + 1}, server.client_id)
        if fails:
            raise ValueError("It was to fail.")
        return (torch.zeros((1, 16, 16, 3)),)

NODE_CLASS_MAPPINGS = {"Steps": Steps}
'''


class PackedComfyUI(ComfyUI):
    """A ComfyUI with the nodes of `PACK` and with `SaveImageWebsocket`, which it brings itself."""

    def _command(self) -> list[str | Path]:
        packs = self.directory / "custom_nodes"
        (packs / "steps.py").write_text(PACK)
        shutil.copy(COMFYUI_MAIN.parent / "custom_nodes" / "websocket_image_save.py", packs)
        # A copy without the file in which the wheel names folders of its own, which are not there.
        program = self.directory.parent / "program"
        shutil.copytree(COMFYUI_MAIN.parent, program, ignore=shutil.ignore_patterns("extra_model_paths.yaml"))
        replaced: dict[object, str | Path] = {COMFYUI_MAIN: program / COMFYUI_MAIN.name}
        command = [replaced.get(part, part) for part in super()._command()]
        return [part for part in command if part != "--disable-all-custom-nodes"]


def steps(count: int, colour: int, *, fails: bool = False) -> dict[str, Any]:
    """A node that works for a while, and a picture that is saved and shown."""
    return {
        "4": {"class_type": "Steps", "inputs": {"steps": count, "colour": colour, "fails": fails}},
        "9": {"class_type": "SaveImage", "inputs": {"images": ["4", 0], "filename_prefix": f"s{colour}"}},
        "10": {"class_type": "PreviewImage", "inputs": {"images": ["4", 0]}},
    }


def websocket_pictures(count: int) -> dict[str, Any]:
    """Pictures that come over the WebSocket."""
    empty = {"width": 16, "height": 16, "batch_size": count, "color": 5}
    return {
        "1": {"class_type": "EmptyImage", "inputs": empty},
        "2": {"class_type": "SaveImageWebsocket", "inputs": {"images": ["1", 0]}},
    }


PROMPTS = {
    "steps": steps(4, 1),
    "cached": steps(4, 1),
    "other": steps(3, 77),
    "failing": steps(2, 200, fails=True),
    "interrupted": steps(200, 300),
    "pictures": websocket_pictures(3),
}

FLAGS = {
    "type": "feature_flags",
    "data": {"supports_preview_metadata": True, "supports_progress_text_metadata": True},
}


async def record(url: str, says_flags: bool) -> dict[str, list[Any]]:
    """Run all prompts for one client; returns the messages of each, and under "greeting" those before."""
    client = uuid.uuid4().hex
    async with aiohttp.ClientSession(url) as session, session.ws_connect(f"/ws?clientId={client}") as socket:
        recorded: dict[str, list[Any]] = {"greeting": [(await socket.receive()).data]}
        if says_flags:
            await socket.send_str(json.dumps(FLAGS))
            recorded["greeting"].append((await socket.receive()).data)
        for name, prompt in PROMPTS.items():
            body = {"prompt": prompt, "client_id": client}
            async with session.post("/prompt", json=body) as response:
                assert response.status == 200, await response.text()
            recorded[name] = [message async for message in _until_end(session, socket, name)]
    return recorded


async def _until_end(session: aiohttp.ClientSession, socket: Any, name: str) -> Any:
    while True:
        message = await asyncio.wait_for(socket.receive(), 60)
        if message.type == aiohttp.WSMsgType.BINARY:
            yield {"binary": base64.b64encode(message.data).decode()}
            continue
        yield message.data
        document = json.loads(message.data)
        if name == "interrupted" and document["type"] == "progress" and document["data"]["value"] == 3:
            await session.post("/interrupt")
        if document["type"] == "executing" and document["data"]["node"] is None:
            return


async def main(file: Path) -> None:
    """Record into ``file``."""
    with tempfile.TemporaryDirectory() as directory:
        processes = ServerProcesses(Path(directory))
        try:
            server = PackedComfyUI(processes, Path(directory) / "a")
            server.wait()
            recorded = {"page": await record(server.url, True), "script": await record(server.url, False)}
        finally:
            processes.stop_all()
    file.write_text(json.dumps(recorded, indent=1) + "\n")


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
