"""The table of routes, and files as answers."""

import pytest

from comfyproxy.demo.files import StoredFile
from comfyproxy.demo.routing import (
    NOT_FOUND,
    Answer,
    Asked,
    Malformed,
    Route,
    Routes,
    cached,
    file_answer,
    json_answer,
    parse_query,
)

FILE = StoredFile("output", "", "x.png", b"0123456789", 1_700_000_000.5)


def echo(asked: Asked) -> Answer:
    return json_answer(dict(asked.found))


@pytest.fixture
def routes() -> Routes:
    return Routes(
        [
            Route("GET", "/a", echo),
            Route("POST", "/a", lambda asked: json_answer(asked.json_object())),
            Route("GET", "/a/{file}", echo),
            Route("GET", "/a/{file}/to/{target}", echo),
            Route("GET", "/bare", echo, prefixed=False),
            Route("GET", "/rest/{rest*}", echo),
        ]
    )


def status(routes: Routes, method: str, path: str, body: bytes = b"") -> int:
    return routes.answer(Asked(method, path, body=body)).status


def test_every_route_is_there_bare_and_under_api(routes: Routes) -> None:
    assert [status(routes, "GET", path) for path in ("/a", "/api/a", "/api/api/a")] == [200, 200, 404]
    assert [status(routes, "GET", path) for path in ("/bare", "/api/bare")] == [200, 404]


def test_get_routes_answer_head(routes: Routes) -> None:
    assert [status(routes, "HEAD", path) for path in ("/a", "/nowhere")] == [200, 404]


def test_a_known_path_says_which_methods_it_has(routes: Routes) -> None:
    answer = routes.answer(Asked("DELETE", "/a"))
    assert (answer.status, answer.fields["Allow"]) == (405, "GET,HEAD,POST")


def test_behind_everything_are_static_files_that_can_only_be_read(routes: Routes) -> None:
    assert routes.answer(Asked("GET", "/nowhere")) == NOT_FOUND
    answer = routes.answer(Asked("POST", "/nowhere"))
    assert (answer.status, answer.fields["Allow"]) == (405, "GET,HEAD")


def test_options_is_always_answered_with_nothing(routes: Routes) -> None:
    assert routes.answer(Asked("OPTIONS", "/a")) == routes.answer(Asked("OPTIONS", "/nowhere")) == Answer()


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("/a/b%2Fc.json", '{"file": "b/c.json"}'),
        ("/a/%C3%A9%20", '{"file": "\\u00e9 "}'),
        ("/a/b%2Fc/to/d%2Fe", '{"file": "b/c", "target": "d/e"}'),
        ("/rest/a/b/c", '{"rest": "a/b/c"}'),
    ],
)
def test_a_parameter_is_decoded_only_after_the_path_was_matched(
    routes: Routes, path: str, found: str
) -> None:
    assert routes.answer(Asked("GET", path)).body.decode() == found


def test_an_encoded_slash_is_not_a_slash(routes: Routes) -> None:
    assert status(routes, "GET", "/a/b/c") == 404


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b"[1]", b"3"])
def test_a_body_that_is_no_json_object_makes_the_server_stumble(routes: Routes, body: bytes) -> None:
    answer = routes.answer(Asked("POST", "/a", body=body))
    assert (answer.status, answer.body) == (
        500,
        b"500 Internal Server Error\n\nServer got itself in trouble",
    )


def test_a_body_can_be_any_json() -> None:
    assert Asked("POST", "/", body=b"3").json() == 3
    with pytest.raises(Malformed):
        Asked("POST", "/", body=b"nope").json()


def test_of_a_repeated_query_name_the_first_counts() -> None:
    assert parse_query("a=1&a=2&b=&c=%2F+") == {"a": "1", "b": "", "c": "/ "}


def file(**fields: str) -> Answer:
    asked = Asked("GET", "/", fields={name.replace("_", "-"): value for name, value in fields.items()})
    return file_answer(asked, FILE, {"Content-Type": "image/png"})


def test_a_file_comes_with_its_validators() -> None:
    answer = file()
    assert (answer.status, answer.body) == (200, b"0123456789")
    assert answer.fields == {
        "Content-Type": "image/png",
        "ETag": FILE.etag,
        "Last-Modified": "Tue, 14 Nov 2023 22:13:20 GMT",
        "Accept-Ranges": "bytes",
    }


@pytest.mark.parametrize("tags", ["*", FILE.etag, f'"x", W/{FILE.etag}'])
def test_a_copy_that_is_current_is_not_sent_again(tags: str) -> None:
    answer = file(if_none_match=tags)
    assert (answer.status, answer.body, answer.fields["ETag"]) == (304, b"", FILE.etag)


def test_the_entity_tag_has_precedence_over_the_date() -> None:
    late = "Wed, 15 Nov 2023 00:00:00 GMT"
    assert file(if_modified_since=late).status == 304
    assert file(if_modified_since=late, if_none_match='"x"').status == 200
    assert file(if_modified_since="Mon, 13 Nov 2023 00:00:00 GMT").status == 200
    assert file(if_modified_since="yesterday").status == 200


@pytest.mark.parametrize(
    ("wanted", "body", "where"),
    [
        ("bytes=2-4", b"234", "bytes 2-4/10"),
        ("bytes=7-", b"789", "bytes 7-9/10"),
        ("bytes=7-99", b"789", "bytes 7-9/10"),
        ("bytes=-3", b"789", "bytes 7-9/10"),
        ("bytes=-99", b"0123456789", "bytes 0-9/10"),
    ],
)
def test_a_range_is_a_part_of_the_file(wanted: str, body: bytes, where: str) -> None:
    answer = file(range=wanted)
    assert (answer.status, answer.body, answer.fields["Content-Range"]) == (206, body, where)


@pytest.mark.parametrize(
    "wanted", ["bytes=10-", "bytes=5-2", "bytes=-0", "bytes=-", "bytes=0-1,3-4", "lines=1-2"]
)
def test_a_range_that_cannot_be_satisfied_is_refused(wanted: str) -> None:
    answer = file(range=wanted)
    assert (answer.status, answer.body, answer.fields["Content-Range"]) == (416, b"", "bytes */10")


def test_a_range_of_another_version_is_the_whole_file() -> None:
    assert file(range="bytes=2-4", if_range=FILE.etag).status == 206
    assert file(range="bytes=2-4", if_range='"other"').status == 200


@pytest.mark.parametrize(
    ("path", "status", "lifetime"),
    [
        ("/extensions/core/a.js", 404, "no-store"),
        ("/userdata/user.css", 200, "no-store"),
        ("/templates/index.json", 200, "no-store"),
        ("/assets/x.PNG", 200, "public, max-age=86400"),
        ("/assets/x.png", 404, "public, max-age=3600"),
        ("/view", 200, None),
    ],
)
def test_caches_are_told_by_the_path(path: str, status: int, lifetime: str | None) -> None:
    assert cached(path, Answer(status)).fields.get("Cache-Control") == lifetime


def test_what_an_answer_says_of_caches_itself_stays() -> None:
    mine = Answer(fields={"Cache-Control": "private"})
    assert cached("/x.js", mine).fields == {"Cache-Control": "private"}
