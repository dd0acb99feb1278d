"""What the server says about itself."""

import json
from typing import Any

import pytest


def test_the_page_is_never_cached(bench: Any) -> None:
    answer = bench.ask("GET", "/")
    assert answer.fields["Content-Type"] == "text/html; charset=utf-8"
    assert answer.fields["Cache-Control"] == "no-store, must-revalidate"
    assert bench.ask("GET", "/index.html").body == answer.body
    assert bench.ask("GET", "/api/").status == 404


def test_the_devices_name_is_the_servers(bench: Any) -> None:
    stats = bench.get("/api/system_stats")
    assert [device["name"] for device in stats["devices"]] == ["gpu-1"]
    assert stats["system"]["comfyui_version"]


def test_the_features_say_how_much_may_be_uploaded(make_bench: Any) -> None:
    features = make_bench(max_upload_size=1000).get("/features")
    assert (features["max_upload_size"], features["supports_preview_metadata"]) == (1000, True)


def test_object_info_has_all_classes_or_one(bench: Any) -> None:
    assert set(bench.get("/object_info")) >= {"EmptyImage", "LoadImage", "SaveImage", "PreviewImage"}
    assert list(bench.get("/object_info/SaveImage")) == ["SaveImage"]
    assert bench.get("/object_info/Unknown") == {}


def test_models_are_listed_by_folder(make_bench: Any) -> None:
    bench = make_bench(models={"loras": ("a.safetensors",), "embeddings": ("e.pt",)})
    assert bench.get("/models") == ["loras", "embeddings"]
    assert bench.get("/models/loras") == ["a.safetensors"]
    assert bench.get("/embeddings") == ["e"]
    assert [folder["name"] for folder in bench.get("/experiment/models")] == ["loras", "embeddings"]
    assert bench.get("/experiment/models/loras") == [{"name": "a.safetensors", "pathIndex": 0}]
    assert bench.ask("GET", "/models/unknown").status == 404
    assert bench.ask("GET", "/experiment/models/unknown").status == 404


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("/extensions", []),
        ("/i18n", {}),
        ("/workflow_templates", {}),
        ("/global_subgraphs", {}),
        ("/global_subgraphs/x", None),
        ("/node_replacements", {}),
    ],
)
def test_what_the_page_asks_for_at_its_start_is_there(bench: Any, path: str, value: object) -> None:
    assert (bench.get(path), bench.get("/api" + path)) == (value, value)


def test_static_files_are_not_under_api(bench: Any) -> None:
    assert bench.get("/templates/index.json") == []
    assert b"# Save Image" in bench.ask("GET", "/docs/SaveImage/en.md").body
    paths = ("/api/templates/index.json", "/api/docs/SaveImage/en.md", "/docs/Unknown/en.md")
    assert [bench.ask("GET", path).status for path in paths] == [404, 404, 404]


def test_assets_are_disabled(bench: Any) -> None:
    for method, path in [("GET", "/api/assets"), ("POST", "/api/assets/seed"), ("GET", "/api/tags")]:
        answer = bench.ask(method, path)
        assert (answer.status, json.loads(answer.body)["error"]["code"]) == (503, "SERVICE_DISABLED")
    assert bench.ask("GET", "/assets").status == 404


def test_the_websockets_address_without_an_upgrade_is_refused(bench: Any) -> None:
    for path in ("/ws", "/api/ws?clientId=x"):
        answer = bench.ask("GET", path)
        assert (answer.status, answer.body.startswith(b"No WebSocket UPGRADE")) == (400, True)
