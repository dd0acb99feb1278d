"""Several servers at once, as one script hears them: all of each prompt, once, and every end in time."""

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from comfyproxy.comfyui.fanin.stage import REPEAT_AFTER
from tests.comfyui.fanin.page import Message, Recording, events
from tests.comfyui.fanin.rig import Script, SessionRig

RECORDING = Recording("script")
KINDS = st.sampled_from(["steps", "cached", "other", "failing", "interrupted", "pictures"])
SERVERS = 3
ONCE = ("executed", "execution_success", "execution_error", "execution_interrupted", "pack.step")


def play(rig: SessionRig, scripts: list[list[Message]], turns: list[int]) -> None:
    """Let the servers speak, each its messages in order, and those of different servers in any."""
    left = [list(script) for script in scripts]
    for turn in range(sum(map(len, scripts))):
        speaking = [server for server in range(SERVERS) if left[server]]
        server = speaking[turns[turn % len(turns)] % len(speaking)]
        rig.now += 0.01
        rig.sends(server, *left[server].pop(0))


def once(messages: list[Message], prompt: str) -> list[tuple[str, Any]]:
    """What is said once of a prompt."""
    return [
        (kind, data) for kind, data in events(messages) if kind in ONCE and data.get("prompt_id") == prompt
    ]


def pictures(messages: list[Message]) -> dict[str, list[bytes]]:
    """The pictures of each prompt, as ComfyUI's websockets_api_example_ws_images.py finds them."""
    found: dict[str, list[bytes]] = {}
    node = prompt = None
    for payload, is_binary in messages:
        if not is_binary and (document := json.loads(payload))["type"] == "executing":
            node, prompt = document["data"]["node"], document["data"]["prompt_id"]
        elif is_binary and payload.startswith(b"\0\0\0\1\0\0\0\2"):
            assert node == "2"
            found.setdefault(prompt or "", []).append(payload)
    return found


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.lists(KINDS, max_size=3), min_size=SERVERS, max_size=SERVERS),
    st.lists(st.integers(0, 10_000), min_size=20, max_size=200),
)
def test_a_script_hears_all_of_each_prompt_once_and_finds_every_end(
    kinds: list[list[str]], turns: list[int]
) -> None:
    rig = SessionRig(SERVERS)
    script = Script()
    rig.attach(script)
    rig.open(*range(SERVERS))
    stories: dict[str, list[Message]] = {}
    scripts: list[list[Message]] = []
    for server, of_server in enumerate(kinds):
        scripts.append([])
        for kind in of_server:
            prompt = f"{len(stories):036d}"
            stories[prompt] = RECORDING.prompt(kind, prompt)
            rig.add(server, prompt)
            scripts[-1] += stories[prompt]

    play(rig, scripts, turns)

    heard = list(script.messages)
    for prompt, messages in stories.items():
        assert once(heard, prompt) == once(messages, prompt)
    expected = {prompt: found for prompt, one in stories.items() if (found := pictures(one).get(prompt))}
    assert pictures(heard) == expected

    rig.wait(2 * REPEAT_AFTER)
    transcript = iter(events(script.messages))
    for prompt in stories:
        assert ("executing", {"node": None, "prompt_id": prompt}) in transcript
