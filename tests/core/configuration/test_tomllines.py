"""Line numbers for what is in a TOML document."""

import pytest

from comfyproxy.core.configuration.tomllines import Path, statement_lines

DOCUMENT = '''# a comment with [brackets] and "quotes
url = "http://a[1-2]"   # ] another

listen = [
    "tcp:80",  # [ one
    "tcp:81",
]
text = """
[not.a.table]
key = 1
""""
last.dotted = { inline = 1, deep = { er = 2 } }

[pools.gpu]  # a header
file = 'C:\\[x'
other = \'\'\'
x = 1\'\'\'

[pools."with.dot"]
url = "x"

[[routes]]
prefix = "/a"
[routes.timeouts]
head = 1

[[routes]]
prefix = "/b"
timeouts = { head = 2 }
'''


@pytest.mark.parametrize(
    ("path", "line"),
    [
        (("url",), 2),
        (("listen",), 4),
        (("text",), 8),
        (("last",), 12),
        (("last", "dotted"), 12),
        (("last", "dotted", "inline"), 12),
        (("last", "dotted", "deep", "er"), 12),
        (("pools",), 14),
        (("pools", "gpu"), 14),
        (("pools", "gpu", "file"), 15),
        (("pools", "gpu", "other"), 16),
        (("pools", "with.dot", "url"), 20),
        (("routes",), 22),
        (("routes", 0), 22),
        (("routes", 0, "prefix"), 23),
        (("routes", 0, "timeouts"), 24),
        (("routes", 0, "timeouts", "head"), 25),
        (("routes", 1), 27),
        (("routes", 1, "prefix"), 28),
        (("routes", 1, "timeouts", "head"), 29),
    ],
)
def test_each_key_and_table_has_its_line(path: Path, line: int) -> None:
    assert statement_lines(DOCUMENT)[path] == line


def test_text_in_strings_and_comments_is_no_key() -> None:
    lines = statement_lines(DOCUMENT)
    assert ("key",) not in lines
    assert ("not", "a", "table") not in lines
    assert ("x",) not in lines


def test_windows_line_ends_count_once() -> None:
    assert statement_lines("a = 1\r\n\r\nb = [\r\n]\r\nc = 2") == {("a",): 1, ("b",): 3, ("c",): 5}


def test_an_empty_document_has_no_lines() -> None:
    assert statement_lines("") == {}
