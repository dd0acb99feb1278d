"""Settings, users and their files."""

import json
from typing import Any

import pytest

WORKFLOW = "/userdata/workflows%2Fa.json"


@pytest.fixture
def kept(bench: Any) -> Any:
    """A server with one workflow."""
    assert bench.post(WORKFLOW, b"{}") == "workflows/a.json"
    return bench


def test_settings_are_merged(bench: Any) -> None:
    bench.post("/settings", {"a": 1, "b": 2})
    bench.post("/api/settings", {"b": 3})
    bench.post("/settings/c.d", b'"x"')
    assert bench.get("/settings") == {"a": 1, "b": 3, "c.d": "x"}
    assert (bench.get("/settings/b"), bench.get("/settings/unknown")) == (3, None)
    assert bench.ask("POST", "/settings", []).status == 500


def test_there_is_one_user(bench: Any) -> None:
    assert bench.get("/users") == {"storage": "server", "migrated": True}


def test_a_user_name_is_taken_once(bench: Any) -> None:
    assert bench.post("/users", {"username": "Ann B"}).startswith("Ann-B_")
    for name, error in [("Ann B", "Duplicate username."), (" ", "username not provided")]:
        answer = bench.ask("POST", "/users", {"username": name})
        assert (answer.status, json.loads(answer.body)) == (400, {"error": error})


def test_a_file_is_named_by_one_encoded_segment(kept: Any) -> None:
    answer = kept.ask("GET", WORKFLOW)
    assert (answer.status, answer.body) == (200, b"{}")
    assert answer.fields["Content-Disposition"] == "attachment"
    assert kept.ask("GET", "/userdata/workflows/a.json").status == 404
    assert kept.ask("GET", "/userdata/workflows%252Fa.json").body == b"{}"


def test_the_users_stylesheet_is_shown_in_place(bench: Any) -> None:
    assert bench.ask("GET", "/userdata/user.css").status == 404
    bench.post("/userdata/user.css", b"body {}")
    fields = bench.ask("GET", "/userdata/user.css").fields
    assert (fields["Content-Type"], fields["Content-Disposition"]) == ("text/css", "inline")


def test_a_file_is_not_overwritten_if_that_is_not_wanted(kept: Any) -> None:
    assert kept.ask("POST", f"{WORKFLOW}?overwrite=false", b"1").status == 409
    info = kept.post(f"{WORKFLOW}?full_info=true", b"123")
    assert info == {"path": "workflows/a.json", "size": 3, "modified": 0, "created": 0}


def test_a_file_can_be_deleted_once(kept: Any) -> None:
    assert [kept.ask("DELETE", WORKFLOW).status for _ in range(2)] == [204, 404]


def test_a_file_can_be_moved(kept: Any) -> None:
    assert kept.post(f"{WORKFLOW}/move/workflows%2Fb.json") == "workflows/b.json"
    assert kept.ask("POST", f"{WORKFLOW}/move/c.json").status == 404
    kept.post("/userdata/c.json", b"")
    moved = "/userdata/workflows%2Fb.json/move"
    assert kept.ask("POST", f"{moved}/c.json?overwrite=false").status == 409
    assert kept.ask("POST", f"{moved}/..%2Fc.json").status == 403


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
def test_nothing_leads_out_of_the_users_folder(bench: Any, method: str) -> None:
    assert bench.ask(method, "/userdata/..%2Fx").status == 403


def test_a_listing_has_its_forms(kept: Any) -> None:
    kept.post("/userdata/workflows%2Fsub%2Fb.json", b"12")
    url = "/userdata?dir=workflows"
    assert kept.get(url) == ["a.json"]
    assert kept.get(f"{url}&recurse=true") == ["a.json", "sub/b.json"]
    assert kept.get(f"{url}&recurse=true&split=true")[1] == ["sub/b.json", "sub", "b.json"]
    full = kept.get(f"{url}&recurse=true&full_info=true")
    assert [(row["path"], row["size"]) for row in full] == [("a.json", 2), ("sub/b.json", 2)]


@pytest.mark.parametrize(
    ("query", "status"), [("", 400), ("dir=", 400), ("dir=../x", 403), ("dir=unknown", 404)]
)
def test_a_listing_of_nothing_is_refused(bench: Any, query: str, status: int) -> None:
    assert bench.ask("GET", f"/userdata?{query}").status == status


def test_the_newer_listing_is_a_tree(kept: Any) -> None:
    rows = kept.get("/v2/userdata")
    assert [(row["type"], row["path"]) for row in rows] == [
        ("directory", "workflows"),
        ("file", "workflows/a.json"),
    ]
    assert [row["name"] for row in kept.get("/v2/userdata?path=workflows")] == ["a.json"]
    answers = [
        kept.ask("GET", f"/v2/userdata?path={path}").status for path in ("x", "..", "workflows/a.json")
    ]
    assert answers == [404, 400, 400]
