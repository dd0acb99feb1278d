"""``.env`` files as Vite's dotenv reads them."""

import pytest

from comfyproxy.core.configuration.dotenv import parse_dotenv


def values(text: str) -> dict[str, str]:
    variables, warnings = parse_dotenv(text, ".env")
    assert warnings == []
    return {key: variable.text for key, variable in variables.items()}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("A=b", "b"),
        ("A=b\n", "b"),
        ("A=b\r\n", "b"),
        ("\ufeffA=b", "b"),
        ("  A=b", "b"),
        ("A = b", "b"),
        ("A=b c  ", "b c"),
        ("A: b", "b"),
        ("export A=b", "b"),
        ("export\tA=b", "b"),
        ("A=", ""),
        ("A=\nB=c", ""),
        ("A=b # comment", "b"),
        ("A=b#comment", "b"),
        ("A=#comment", ""),
        ("A='b'", "b"),
        ('A="b"', "b"),
        ("A=`b`", "b"),
        ("A='b # c'  # comment", "b # c"),
        ('A=" b "', " b "),
        ("A=''", ""),
        (r'A="b\nc\rd"', "b\nc\rd"),
        (r"A='b\nc'", r"b\nc"),
        ("A='b\nc'", "b\nc"),
        (r"A='it\'s'", r"it\'s"),
        (r'A="say \"b\""', r"say \"b\""),
        ("A='b' c", "'b' c"),
        ("A='b", "'b"),
        ("A=b'c'", "b'c'"),
        ("A=${B}", "${B}"),
        ("A=b=c", "b=c"),
        ("A=old\nA=new", "new"),
        (
            "A=http://a,http://b; http://c",
            "http://a,http://b; http://c",
        ),
        ("A=http://localhost:818[8-0]  # Won't work - just use direct", "http://localhost:818[8-0]"),
    ],
)
def test_a_value_is_what_a_user_of_vite_expects(text: str, value: str) -> None:
    assert values(text)["A"] == value


def test_keys_have_dots_and_hyphens() -> None:
    assert values("A.b-c_1=x") == {"A.b-c_1": "x"}


def test_comments_and_blank_lines_say_nothing() -> None:
    assert values("# A=b\n\n   # more\n \t\n") == {}
    assert values("") == {}


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("A=b", ".env:1:3"),
        ("\n# c\nexport A = b", ".env:3:12"),
        ("A='b'", ".env:1:4"),
        ("B='x\ny'\nA=b", ".env:3:3"),
        ("B=\n\nA=b", ".env:3:3"),
    ],
)
def test_a_value_remembers_where_it_begins(text: str, place: str) -> None:
    variables, _ = parse_dotenv(text, ".env")
    assert str(variables["A"].place) == place


def test_columns_are_counted_in_a_value_of_one_line_only() -> None:
    variables, _ = parse_dotenv("A='bcd'\nB='b\nc'", ".env")
    assert variables["A"].place.at(2).column == 6
    assert variables["B"].place.at(2).column == 4


def test_a_line_that_is_none_is_left_out_with_a_warning() -> None:
    variables, warnings = parse_dotenv("A=b\nhttp://c\nC d\nE=f\nlast", ".env")
    assert set(variables) == {"A", "E"}
    assert [str(warning) for warning in warnings] == [
        ".env:2:1: this is not KEY=VALUE; left out",
        ".env:3:1: this is not KEY=VALUE; left out",
        ".env:5:1: this is not KEY=VALUE; left out",
    ]
