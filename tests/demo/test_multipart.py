"""Forms with files in them."""

import pytest

from comfyproxy.demo.multipart import Part, parse_form

BINARY = bytes(range(256)) + b"\r\n--not-the-boundary\r\n\r\n"


def form(*parts: tuple[str, bytes], boundary: str = "b0und") -> bytes:
    sections = [
        b"--%s\r\n%s\r\n\r\n%s\r\n" % (boundary.encode(), head.encode(), data) for head, data in parts
    ]
    return b"".join(sections) + b"--%s--\r\n" % boundary.encode()


def test_files_are_kept_byte_for_byte() -> None:
    head = 'Content-Disposition: form-data; name="image"; filename="a b.png"\r\nContent-Type: image/png'
    body = form((head, BINARY), ('content-disposition: form-data; name="overwrite"', b"true"))
    assert parse_form("multipart/form-data; boundary=b0und", body) == {
        "image": Part(BINARY, "a b.png"),
        "overwrite": Part(b"true"),
    }


@pytest.mark.parametrize(
    "content_type",
    [
        'multipart/form-data; boundary="b 0"',
        'Multipart/Form-Data; charset=utf-8; boundary="b 0"',
    ],
)
def test_a_boundary_may_be_quoted(content_type: str) -> None:
    body = form(('Content-Disposition: form-data; name="a"', b""), boundary="b 0")
    assert parse_form(content_type, body) == {"a": Part(b"")}


def test_of_a_repeated_name_the_first_counts() -> None:
    head = 'Content-Disposition: form-data; name="a"'
    assert parse_form("multipart/form-data; boundary=b0und", form((head, b"1"), (head, b"2"))) == {
        "a": Part(b"1")
    }


@pytest.mark.parametrize("name", ["ü.png", "u (1).png", "a;b.png"])
def test_a_file_name_may_be_anything(name: str) -> None:
    body = form((f'Content-Disposition: form-data; name="image"; filename="{name}"', b"x"))
    assert parse_form("multipart/form-data; boundary=b0und", body)["image"].filename == name


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("", b""),
        ("application/json", b"{}"),
        ("multipart/form-data", b"--b\r\n\r\n"),
        ("multipart/form-data; boundary=b", b"nothing of it"),
        ("multipart/form-data; boundary=b", b"--b\r\nContent-Disposition: form-data\r\n\r\nx\r\n--b--"),
        ("multipart/form-data; boundary=b", b"--b\r\nX: y\r\n\r\nx\r\n--b--"),
    ],
)
def test_what_is_no_form_has_no_fields(content_type: str, body: bytes) -> None:
    assert parse_form(content_type, body) == {}
