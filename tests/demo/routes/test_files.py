"""Uploads and /view."""

import json
from typing import Any

import pytest

from comfyproxy.demo.routing import Answer

BOUNDARY = "b0und"


def upload(bench: Any, url: str, data: bytes | None, name: str = "u.png", **fields: str) -> Answer:
    parts = [f'name="{key}"\r\n\r\n{value}'.encode() for key, value in fields.items()]
    if data is not None:
        parts.append(f'name="image"; filename="{name}"\r\nContent-Type: image/png\r\n\r\n'.encode() + data)
    body = b"".join(
        b"--%s\r\nContent-Disposition: form-data; %s\r\n" % (BOUNDARY.encode(), part) for part in parts
    )
    body += f"--{BOUNDARY}--\r\n".encode()
    content_type = f"multipart/form-data; boundary={BOUNDARY}"
    return bench.ask("POST", url, body, {"content-type": content_type})


def named(answer: Answer) -> dict[str, str]:
    assert answer.status == 200
    return json.loads(answer.body)


def test_an_upload_lands_in_the_input_folder(bench: Any) -> None:
    reply = named(upload(bench, "/api/upload/image", b"one"))
    assert reply == {"name": "u.png", "subfolder": "", "type": "input"}
    assert bench.ask("GET", "/view?filename=u.png&type=input").body == b"one"


def test_other_bytes_of_one_name_are_renamed_and_the_same_are_not(bench: Any) -> None:
    names = [named(upload(bench, "/upload/image", data))["name"] for data in (b"one", b"two", b"one", b"two")]
    assert names == ["u.png", "u (1).png", "u.png", "u (1).png"]


@pytest.mark.parametrize("word", ["true", "1"])
def test_an_upload_may_overwrite(bench: Any, word: str) -> None:
    upload(bench, "/upload/image", b"one")
    assert named(upload(bench, "/upload/image", b"two", overwrite=word))["name"] == "u.png"
    assert bench.ask("GET", "/view?filename=u.png&type=input").body == b"two"


def test_an_upload_may_choose_its_folder(bench: Any) -> None:
    reply = named(upload(bench, "/upload/image", b"one", type="temp", subfolder="a/b"))
    assert reply == {"name": "u.png", "subfolder": "a/b", "type": "temp"}
    assert bench.ask("GET", "/view?filename=u.png&type=temp&subfolder=a/b").status == 200


def test_what_is_uploaded_again_keeps_its_entity_tag(bench: Any) -> None:
    upload(bench, "/upload/image", b"one")
    before = bench.ask("GET", "/view?filename=u.png&type=input").fields["ETag"]
    bench.clock.advance(60)
    upload(bench, "/upload/image", b"one")
    assert bench.ask("GET", "/view?filename=u.png&type=input").fields["ETag"] == before


def test_an_upload_that_is_none_is_refused(bench: Any) -> None:
    assert upload(bench, "/upload/image", None).status == 400
    assert upload(bench, "/upload/image", b"x", name="").status == 400
    assert upload(bench, "/upload/image", b"x", subfolder="../..").status == 400
    assert upload(bench, "/upload/image", b"x", type="models").status == 500
    assert bench.ask("POST", "/upload/image", b"x").status == 400


def test_a_mask_is_kept_when_its_original_is_here(bench: Any) -> None:
    upload(bench, "/upload/image", b"original", name="o.png")
    here = json.dumps({"filename": "o.png", "type": "input"})
    assert named(upload(bench, "/upload/mask", b"mask", "m.png", original_ref=here))["name"] == "m.png"
    assert bench.ask("GET", "/view?filename=m.png&type=input").body == b"mask"


def test_a_mask_of_an_original_on_another_server_is_lost_without_a_word(bench: Any) -> None:
    there = json.dumps({"filename": "o.png", "subfolder": "clipspace", "type": "input"})
    assert named(upload(bench, "/upload/mask", b"mask", "m.png", original_ref=there))["name"] == "m.png"
    assert bench.ask("GET", "/view?filename=m.png&type=input").status == 404


@pytest.mark.parametrize("reference", ["", "{}", "[]", "nope"])
def test_a_mask_must_name_its_original(bench: Any, reference: str) -> None:
    assert upload(bench, "/upload/mask", b"mask", original_ref=reference).status == 500


def test_a_picture_is_viewed_with_its_name_and_its_validators(
    bench: Any, flat_picture: dict[str, Any]
) -> None:
    bench.prompt(flat_picture)
    bench.run()
    answer = bench.ask("GET", "/view?filename=flat_00001_.png&subfolder=&type=output")
    assert answer.status == 200
    assert answer.fields["Content-Type"] == "image/png"
    assert answer.fields["Content-Disposition"] == 'filename="flat_00001_.png"'
    tag = {"if-none-match": answer.fields["ETag"]}
    assert bench.ask("GET", "/view?filename=flat_00001_.png", b"", tag).status == 304
    part = bench.ask("GET", "/view?filename=flat_00001_.png", b"", {"range": "bytes=1-3"})
    assert (part.status, part.body) == (206, b"PNG")


def test_another_encoding_comes_without_validators(bench: Any, flat_picture: dict[str, Any]) -> None:
    bench.prompt(flat_picture)
    bench.run()
    for query in ("preview=webp;90", "channel=rgb"):
        answer = bench.ask("GET", f"/view?filename=flat_00001_.png&{query}")
        assert answer.status == 200
        assert "ETag" not in answer.fields
    assert "ETag" in bench.ask("GET", "/view?filename=flat_00001_.png&channel=rgba").fields


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("", 404),
        ("filename=nothing.png", 404),
        ("filename=", 400),
        ("filename=/etc/passwd", 400),
        ("filename=../x", 400),
        ("filename=x&type=models", 400),
        ("filename=x&subfolder=../..", 403),
    ],
)
def test_what_cannot_be_viewed_is_refused(bench: Any, query: str, status: int) -> None:
    assert bench.ask("GET", f"/view?{query}").status == status


def test_a_name_may_say_its_folder(bench: Any) -> None:
    upload(bench, "/upload/image", b"one")
    assert bench.ask("GET", "/view?filename=u.png+[input]&type=output").body == b"one"


def test_what_a_browser_would_run_is_a_download(bench: Any) -> None:
    upload(bench, "/upload/image", b"<svg/>", name='a"b.svg')
    url = "/view?filename=a%22b.svg&type=input"
    page, image = bench.ask("GET", url), bench.ask("GET", url, b"", {"sec-fetch-dest": "image"})
    assert page.fields["Content-Disposition"].startswith("attachment; ")
    assert page.fields["Content-Type"] == "application/octet-stream"
    assert (image.fields["Content-Type"], image.fields["Vary"]) == ("image/svg+xml", "Sec-Fetch-Dest")
    assert page.fields["Cache-Control"] == "no-store"


def test_the_models_have_no_metadata(bench: Any) -> None:
    assert bench.ask("GET", "/view_metadata/loras?filename=x.safetensors").status == 404
