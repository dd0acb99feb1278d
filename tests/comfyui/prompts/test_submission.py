"""A prompt that is submitted: where it goes, and what its client is told."""

from collections.abc import Callable
from typing import Any

Prompt = Callable[..., dict[str, Any]]


def test_prompts_at_once_spread_over_the_servers(rig: Any, seconds: Prompt) -> None:
    page = rig.open("/ws?clientId=me")
    ids = [rig.submit(seconds(4, seed), client_id="me") for seed in range(2)]
    assert {rig.holder(one).name for one in ids} == {"gpu1", "gpu2"}
    rig.turn(6)
    for one in ids:
        assert page.told(one)[0] == "execution_start"
        assert page.told(one)[-2:] == ["execution_success", "end"]
    assert page.remaining == 0
    assert len(rig.dispatch.ledger) == 0
