"""Uploads as forms, as others read them."""

import json
from email.parser import BytesParser
from email.policy import HTTP

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comfyproxy.comfyui.files import FileRef
from comfyproxy.comfyui.forms import original_of, upload_form
from comfyproxy.demo.multipart import parse_form


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("u (1).png", b"\x89PNG\r\n\x1a\n\0"),
        ('a"b;c\\d.png', b""),
        ("ünïcode 名.webp", b"--\r\n--boundary\r\n\r\n"),
        ("100%41.png", b"\r\n"),
    ],
)
def test_the_file_arrives_under_its_name(name: str, data: bytes) -> None:
    form = upload_form(FileRef("input", "a/ü", name), data)
    fields = parse_form(form.content_type.decode(), form.body)
    assert fields["image"].filename == name
    assert fields["image"].data == data
    assert {key: fields[key].data.decode() for key in ("overwrite", "type", "subfolder")} == {
        "overwrite": "true",
        "type": "input",
        "subfolder": "a/ü",
    }


def test_another_parser_reads_the_same() -> None:
    form = upload_form(FileRef("input", "", "名.png"), b"data")
    message = BytesParser(policy=HTTP).parsebytes(
        b"Content-Type: " + form.content_type + b"\r\n\r\n" + form.body
    )
    *_, image = message.iter_parts()  # type: ignore[attr-defined]
    assert image.get_filename() == "名.png"
    assert image.get_payload(decode=True) == b"data"


@given(st.text(min_size=1), st.text(), st.binary())
def test_no_name_is_too_strange(name: str, subfolder: str, data: bytes) -> None:
    form = upload_form(FileRef("input", subfolder, name), data)
    assert parse_form(form.content_type.decode(), form.body)["image"].data == data


def mask_form(original: object, quote: str = '"', extra: str = "") -> tuple[bytes, bytes]:
    parts = [
        '--b-1\r\nContent-Disposition: form-data; name="image"; filename="m.png"\r\n'
        "Content-Type: image/png\r\n\r\nPNG\r\n",
        f"--b-1\r\nContent-Disposition: form-data; name={quote}original_ref{quote}\r\n{extra}\r\n"
        f"{json.dumps(original)}\r\n",
        '--b-1\r\nContent-Disposition: form-data; name="type"\r\n\r\ninput\r\n--b-1--\r\n',
    ]
    return b"multipart/form-data; boundary=b-1", "".join(parts).encode()


PICTURE = {"filename": "x.png", "subfolder": "s", "type": "temp"}


@pytest.mark.parametrize("quote", ['"', ""])
@pytest.mark.parametrize("extra", ["", "Content-Type: application/json\r\n"])
def test_a_mask_says_what_it_was_drawn_on(quote: str, extra: str) -> None:
    content_type, body = mask_form(PICTURE, quote, extra)
    original = original_of(content_type, body)
    assert original is not None
    assert original.file == FileRef("temp", "s", "x.png")
    assert json.loads(body[original.start : original.end]) == PICTURE


@pytest.mark.parametrize(
    "content_type", [b'multipart/form-data; charset=x; boundary="b-1"', b"Multipart/Form-Data;boundary=b-1"]
)
def test_a_boundary_may_be_written_otherwise(content_type: bytes) -> None:
    assert original_of(content_type, mask_form(PICTURE)[1]) is not None


def test_what_is_not_said_is_comfyuis_default_and_an_annotation_counts_more() -> None:
    original = original_of(*mask_form({"filename": "x.png"}))
    assert original is not None
    assert original.file == FileRef("output", "", "x.png")
    original = original_of(*mask_form({"filename": "x.png [input]", "type": "temp"}))
    assert original is not None
    assert original.file == FileRef("input", "", "x.png")


def test_it_may_be_said_of_another_file() -> None:
    content_type, body = mask_form(PICTURE)
    original = original_of(content_type, body)
    assert original is not None
    changed = original.replaced(body, FileRef("output", "", "y.png"))
    again = original_of(content_type, changed)
    assert again is not None
    assert again.file == FileRef("output", "", "y.png")
    assert parse_form(content_type.decode(), changed)["type"].data == b"input"


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        (b"application/json", b"{}"),
        (b"multipart/form-data", b""),
        (b"multipart/form-data; boundary=b-1", b""),
        (b"multipart/form-data; boundary=b-1", mask_form(PICTURE)[1][:200]),
        mask_form(7),
        mask_form({"filename": 7}),
    ],
)
def test_a_form_may_say_nothing_of_it(content_type: bytes, body: bytes) -> None:
    assert original_of(content_type, body) is None


@given(st.binary(), st.binary())
def test_no_form_is_too_strange(content_type: bytes, body: bytes) -> None:
    original_of(content_type, body)
    original_of(b"multipart/form-data; boundary=b-1", mask_form(PICTURE)[1][:90] + body)
