"""One prompt on its way: what is told to whom, in which order, and what is left in the history."""

import struct
from typing import Any

import pytest

from comfyproxy.demo.nodes import NODES, EmptyImage
from comfyproxy.demo.picture import size_of


@pytest.fixture
def events_of(bench: Any, sampled_picture: dict[str, Any]) -> Any:
    """Run the sampled picture for a client, and give what it received."""

    def run(**features: Any) -> Any:
        recorder = bench.connect("me", features)
        bench.prompt(sampled_picture, client_id="me")
        bench.run()
        return recorder

    return run


def test_events_come_in_the_order_of_comfyui(events_of: Any) -> None:
    step = ["progress_state", "progress", "(binary)"]
    assert events_of().types == [
        "status",
        "status",
        "execution_start",
        "execution_cached",
        *["progress_state", "executing", *step, *step, "progress_state"],
        *["progress_state", "executing", "executed", "progress_state"],
        "execution_success",
        "status",
        "executing",
    ]


def test_a_client_that_flags_it_gets_the_newer_previews_before_the_progress(events_of: Any) -> None:
    recorder = events_of(supports_preview_metadata=True)
    kinds = [struct.unpack_from(">I", one)[0] for one in recorder.received if isinstance(one, bytes)]
    assert kinds == [4, 4]
    start = recorder.types.index("(binary)")
    assert recorder.types[start - 1 : start + 2] == ["progress_state", "(binary)", "progress"]


def test_the_events_of_a_prompt_all_name_it(events_of: Any) -> None:
    recorder = events_of()
    kinds = ("executing", "executed", "progress", "progress_state")
    named = [data["prompt_id"] for kind in kinds for data in recorder.data(kind)]
    assert len(set(named)) == 1
    assert recorder.data("executing")[-1] == {"node": None, "prompt_id": named[0]}


def test_the_history_is_stored_after_the_success_and_before_the_last_status(
    bench: Any, sampled_picture: dict[str, Any]
) -> None:
    stored: dict[str, bool] = {}
    recorder = bench.connect("me")
    prompt_id = bench.prompt(sampled_picture, client_id="me")
    send = recorder.send

    def watch(payload: str | bytes) -> None:
        send(payload)
        stored[recorder.types[-1]] = prompt_id in bench.machine.queue.history

    recorder.send = watch
    bench.run()
    assert stored["execution_success"] is False
    assert (stored["status"], stored["executing"]) == (True, True)


def test_steps_take_the_time_they_are_given(bench: Any, sampled_picture: dict[str, Any]) -> None:
    recorder = bench.connect("me")
    bench.prompt(sampled_picture, client_id="me")
    bench.clock.pump([0, 0, 0.9])
    assert recorder.data("progress") == []
    bench.clock.advance(0.1)
    assert [step["value"] for step in recorder.data("progress")] == [1]
    bench.run()
    assert [(step["value"], step["max"]) for step in recorder.data("progress")] == [(1, 2), (2, 2)]
    assert bench.clock.seconds() == pytest.approx(2.0)


def test_a_prompt_of_nobody_tells_its_progress_to_everybody(
    bench: Any, sampled_picture: dict[str, Any]
) -> None:
    one, two = bench.connect("1"), bench.connect("2", {"supports_preview_metadata": True})
    bench.prompt(sampled_picture)
    bench.run()
    assert one.types == two.types
    assert set(one.types) == {"status", "progress", "progress_state", "(binary)"}
    assert all(one[:4] == b"\0\0\0\1" for one in two.received if isinstance(one, bytes))


def test_events_of_a_client_are_for_nobody_else(bench: Any, sampled_picture: dict[str, Any]) -> None:
    bystander = bench.connect("other")
    bench.prompt(sampled_picture, client_id="me")
    bench.run()
    assert set(bystander.types) == {"status"}


def test_what_was_made_before_is_not_made_again(bench: Any, sampled_picture: dict[str, Any]) -> None:
    recorder = bench.connect("me")
    first, second = (bench.prompt(sampled_picture, client_id="me") for _ in range(2))
    bench.run()
    cached = recorder.data("execution_cached")
    assert (cached[0]["nodes"], sorted(cached[1]["nodes"])) == ([], ["1", "2"])
    assert [data["prompt_id"] for data in recorder.data("executed")] == [first, second]
    history = bench.get("/history")
    assert history[first]["outputs"] == history[second]["outputs"]
    assert len(bench.machine.files.listing("output")) == 1


def test_only_the_last_prompts_results_are_kept(
    bench: Any, sampled_picture: dict[str, Any], flat_picture: dict[str, Any]
) -> None:
    recorder = bench.connect("me")
    for graph in (sampled_picture, flat_picture, sampled_picture):
        bench.prompt(graph, client_id="me")
    bench.run()
    assert [data["nodes"] for data in recorder.data("execution_cached")] == [[], [], []]


def test_free_memory_forgets_the_results(bench: Any, sampled_picture: dict[str, Any]) -> None:
    recorder = bench.connect("me")
    bench.prompt(sampled_picture, client_id="me")
    bench.run()
    bench.post("/free", {"free_memory": True})
    bench.prompt(sampled_picture, client_id="me")
    bench.run()
    assert [data["nodes"] for data in recorder.data("execution_cached")] == [[], []]


def test_an_interrupt_ends_the_prompt_at_once_and_tells_its_client(
    bench: Any, sampled_picture: dict[str, Any]
) -> None:
    recorder, bystander = bench.connect("me"), bench.connect("other")
    prompt_id = bench.prompt(sampled_picture, client_id="me")
    bench.clock.pump([0, 0, 1.0])
    bench.post("/interrupt", {"prompt_id": prompt_id})
    bench.clock.advance(0)
    assert recorder.types[-3:] == ["execution_interrupted", "status", "executing"]
    told = recorder.data("execution_interrupted")[0]
    assert (told["node_id"], told["node_type"], told["executed"]) == ("1", "DemoSampler", [])
    assert "execution_interrupted" not in bystander.types
    status = bench.get("/history")[prompt_id]["status"]
    assert (status["status_str"], status["completed"]) == ("error", False)
    assert [name for name, _ in status["messages"]][-1] == "execution_interrupted"
    bench.run()
    assert bench.clock.seconds() < 2


def test_the_interrupt_of_a_prompt_of_nobody_is_told_to_everybody(
    bench: Any, sampled_picture: dict[str, Any]
) -> None:
    bystander = bench.connect("other")
    bench.prompt(sampled_picture)
    bench.clock.pump([0, 0])
    bench.post("/interrupt")
    bench.run()
    assert "execution_interrupted" in bystander.types


def test_a_node_that_fails_ends_the_prompt_with_an_error(bench: Any) -> None:
    recorder = bench.connect("me")
    bench.machine.files.save("input", "", "x.png", b"no picture", 0.0)
    graph = {
        "1": {"class_type": "LoadImage", "inputs": {"image": "x.png"}},
        "2": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}},
    }
    prompt_id = bench.prompt(graph, client_id="me")
    bench.run()
    (error,) = recorder.data("execution_error")
    assert (error["node_id"], error["exception_type"]) == ("1", "PIL.UnidentifiedImageError")
    assert "cannot identify image file" in error["exception_message"]
    assert error["current_inputs"] == {"image": ["x.png"]}
    assert recorder.types[-1] == "executing"
    assert bench.get(f"/api/jobs/{prompt_id}")["status"] == "failed"


def test_a_mistake_inside_a_node_ends_the_prompt_and_not_the_server(
    make_bench: Any, flat_picture: dict[str, Any]
) -> None:
    class Broken(EmptyImage):
        @classmethod
        def run(cls, inputs: Any, workshop: Any) -> Any:
            raise ZeroDivisionError("division by zero")

    bench = make_bench(nodes={**NODES, "EmptyImage": Broken})
    recorder = bench.connect("me")
    bench.prompt(flat_picture, client_id="me")
    bench.run()
    assert recorder.data("execution_error")[0]["exception_type"] == "ZeroDivisionError"


def test_saving_outside_the_output_folder_is_an_error(bench: Any, flat_picture: dict[str, Any]) -> None:
    recorder = bench.connect("me")
    flat_picture["2"]["inputs"]["filename_prefix"] = "../up"
    bench.prompt(flat_picture, client_id="me")
    bench.run()
    assert "not allowed" in recorder.data("execution_error")[0]["exception_message"]


def test_the_image_of_a_file_of_another_folder_can_be_loaded(
    bench: Any, flat_picture: dict[str, Any]
) -> None:
    bench.prompt(flat_picture)
    bench.run()
    graph = {
        "1": {"class_type": "LoadImage", "inputs": {"image": "flat_00001_.png [output]"}},
        "2": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}},
    }
    bench.prompt(graph)
    bench.run()
    (saved,), (shown,) = bench.machine.files.listing("output"), bench.machine.files.listing("temp")
    assert shown.data == saved.data


def test_a_batch_is_saved_picture_by_picture(bench: Any, flat_picture: dict[str, Any]) -> None:
    flat_picture["1"]["inputs"]["batch_size"] = 3
    flat_picture["2"]["inputs"]["filename_prefix"] = "a/%width%x%height%-%batch_num%"
    prompt_id = bench.prompt(flat_picture)
    bench.run()
    images = bench.get("/history")[prompt_id]["outputs"]["2"]["images"]
    assert images == [
        {"filename": f"64x64-{number}_0000{number + 1}_.png", "subfolder": "a", "type": "output"}
        for number in range(3)
    ]


def test_a_sampler_takes_its_size_from_its_image(bench: Any) -> None:
    graph = {
        "1": {"class_type": "EmptyImage", "inputs": {"width": 48, "height": 32, "batch_size": 1, "color": 0}},
        "2": {
            "class_type": "DemoSampler",
            "inputs": {"seed": 1, "steps": 1, "seconds": 0, "image": ["1", 0]},
        },
        "3": {"class_type": "SaveImage", "inputs": {"images": ["2", 0], "filename_prefix": "x"}},
    }
    bench.prompt(graph)
    bench.run()
    assert size_of(bench.machine.files.listing("output")[0].data) == (48, 32)
