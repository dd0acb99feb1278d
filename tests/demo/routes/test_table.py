"""The whole table: every route of the reference is there, in the forms that it has in ComfyUI."""

from typing import Any

import pytest

BOTH = [
    "/embeddings",
    "/experiment/models",
    "/extensions",
    "/features",
    "/global_subgraphs",
    "/history",
    "/i18n",
    "/models",
    "/node_replacements",
    "/object_info",
    "/prompt",
    "/queue",
    "/settings",
    "/system_stats",
    "/users",
    "/v2/userdata",
    "/workflow_templates",
]


@pytest.mark.parametrize("path", BOTH)
def test_the_routes_of_the_page_are_there_bare_and_under_api(bench: Any, path: str) -> None:
    assert [
        bench.ask(method, prefix + path).status for method in ("GET", "HEAD") for prefix in ("", "/api")
    ] == [200] * 4


@pytest.mark.parametrize(
    "path",
    ["/prompt", "/queue", "/history", "/interrupt", "/free", "/upload/image", "/upload/mask", "/users"],
)
def test_what_is_posted_is_known_under_both_names(bench: Any, path: str) -> None:
    assert 405 not in [bench.ask("POST", prefix + path).status for prefix in ("", "/api")]
    assert bench.ask("DELETE", path).status == 405


def test_an_unknown_path_is_not_found(bench: Any) -> None:
    assert [bench.ask("GET", path).status for path in ("/viewvideo", "/api/viewvideo", "/favicon.ico")] == [
        404,
        404,
        404,
    ]
