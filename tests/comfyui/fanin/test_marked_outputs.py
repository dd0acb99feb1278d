"""What nodes gave on several servers is told apart in the events, too."""

from comfyproxy.comfyui.fanin.session import ClientSession
from comfyproxy.comfyui.ownership import marked
from tests.comfyui.fanin.rig import SessionRig

PICTURE = {"filename": "ComfyUI_00001_.png", "subfolder": "", "type": "output"}


class MarkingRig(SessionRig):
    """Its session marks outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.session = ClientSession(
            "cid",
            self.backends[0],
            self.now,
            note=self._note,
            unsure=lambda backend: None,
            queued=lambda: len(self.queued),
            mark=marked,
        )


def test_a_picture_says_which_server_it_is_on_and_what_else_is_given_stays_as_it_is() -> None:
    rig = MarkingRig()
    script = rig.script()
    rig.open(1)
    rig.add(1, "p")
    rig.starts(1, "p")
    script.take()
    for output in ({"images": [PICTURE]}, {"text": ["a cat"]}, None):
        rig.says(1, "executed", {"node": "9", "display_node": "9", "output": output, "prompt_id": "p"})
    picture = PICTURE | {"subfolder": f"server-{rig.backends[1].fingerprint}"}
    assert [message["data"]["output"] for message in script.take()] == [
        {"images": [picture]},
        {"text": ["a cat"]},
        None,
    ]
    assert rig.noted[-3][1]["data"]["output"] == {"images": [PICTURE]}
