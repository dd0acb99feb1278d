"""/internal."""

import json
from typing import Any


def test_internal_routes_are_not_under_api(bench: Any) -> None:
    assert bench.ask("GET", "/internal/logs").status == 200
    assert bench.ask("GET", "/api/internal/logs").status == 404


def test_the_log_is_text_or_entries(bench: Any) -> None:
    bench.machine.log("got prompt")
    assert bench.get("/internal/logs") == "1970-01-01T00:00:00 - got prompt\n"
    raw = bench.get("/internal/logs/raw")
    assert [entry["m"] for entry in raw["entries"]] == ["got prompt\n"]
    assert raw["size"]["cols"] == 80


def test_a_client_can_watch_the_log(bench: Any) -> None:
    recorder = bench.connect("me")
    for enabled in (True, False):
        body = {"clientId": "me", "enabled": enabled}
        assert bench.ask("PATCH", "/internal/logs/subscribe", body).status == 200
        bench.machine.log(f"enabled {enabled}")
    assert [data["entries"][0]["m"] for data in recorder.data("logs")] == ["enabled True\n"]
    assert bench.ask("PATCH", "/internal/logs/subscribe", {"enabled": True}).status == 500


def test_files_are_listed_newest_first(bench: Any) -> None:
    for seconds, name in [(1, "old.png"), (3, "new.png"), (2, "middle.png")]:
        bench.machine.files.save("output", "", name, b"", float(seconds))
    assert bench.get("/internal/files/output") == ["new.png", "middle.png", "old.png"]
    answer = bench.ask("GET", "/internal/files/models")
    assert (answer.status, json.loads(answer.body)) == (400, {"error": "Invalid directory type"})


def test_the_folders_of_the_models_are_told(bench: Any) -> None:
    assert bench.get("/internal/folder_paths")["checkpoints"] == ["/demo/models/checkpoints"]
