"""One machine: its parts know each other."""

from typing import Any

from comfyproxy.demo.machine import MODELS, Installation


def test_every_change_of_the_queue_is_told_to_everybody(bench: Any, flat_picture: dict[str, Any]) -> None:
    recorder = bench.connect("other")
    for _ in range(2):
        bench.prompt(flat_picture)
    remaining = [data["status"]["exec_info"]["queue_remaining"] for data in recorder.data("status")]
    assert remaining == [1, 2]
    bench.run()
    assert recorder.data("status")[-1]["status"]["exec_info"]["queue_remaining"] == 0


def test_the_log_tells_what_the_server_did(bench: Any, flat_picture: dict[str, Any]) -> None:
    bench.prompt(flat_picture)
    bench.run()
    assert [entry["m"] for entry in bench.machine.logs.entries] == [
        "got prompt\n",
        "Prompt executed in 0.00 seconds\n",
    ]


def test_time_is_the_clocks(bench: Any) -> None:
    bench.clock.advance(12.5)
    assert bench.machine.now() == 12.5


def test_an_installation_is_the_newest_comfyui_unless_told_otherwise() -> None:
    installation = Installation("gpu-1", 0.5)
    assert (installation.jobs_api, installation.uuid_check, installation.interrupt_by_id) == (
        True,
        True,
        True,
    )
    assert installation.features["max_upload_size"] == 104_857_600
    assert installation.models is MODELS
