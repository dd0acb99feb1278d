"""JSON arrays read element by element, each with its place."""

import pytest

from comfyproxy.core.configuration.jsonarray import elements
from comfyproxy.errors import ConfigError


def read(text: str) -> list[tuple[object, str]]:
    return [(element.value, str(element.place)) for element in elements(text, "s.json")]


def failure(text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        list(elements(text, "s.json"))
    return str(caught.value)


@pytest.mark.parametrize("text", ["[]", " [ \n ] \n", "[\r\n]\r\n"])
def test_an_empty_array_has_no_elements(text: str) -> None:
    assert read(text) == []


def test_strings_and_objects_come_in_order_with_their_places() -> None:
    text = '[\n  "a", "b",\n\n  {"url":\n "c"},\n"d"]\n'
    assert read(text) == [
        ("a", "s.json:2:4"),
        ("b", "s.json:2:9"),
        ({"url": "c"}, "s.json:4:3"),
        ("d", "s.json:6:2"),
    ]


def test_characters_of_a_plain_string_can_be_counted() -> None:
    (element,) = elements('["abc"]', "s.json")
    assert element.place.at(2).column == 5


@pytest.mark.parametrize("text", [r'["a\/b"]', r'["a\u0062"]', '[{"url": "a"}]'])
def test_characters_after_an_escape_or_in_an_object_cannot(text: str) -> None:
    (element,) = elements(text, "s.json")
    assert element.place.at(2) == element.place


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "1:1: expected a JSON array of servers, which begins with [, found the end of the file"),
        ('\n{"servers": []}', "2:1: expected a JSON array of servers, which begins with [, found {"),
        ('["a"\n "b"]', "2:2: expected a comma or the closing ] of the array, found \""),
        ('["a"', "1:5: expected a comma or the closing ] of the array, found the end of the file"),
        ('["a",\n]', '2:1: expected a URL in double quotes or an object with "url", found ]'),
        ("['a']", "1:2: expected a URL in double quotes or an object with \"url\", found '"),
        ("[", '1:2: expected a URL in double quotes or an object with "url", found the end of the file'),
        ("[1]", '1:2: expected a URL in double quotes or an object with "url", found 1'),
        ('[\n["a"]]', '2:1: expected a URL in double quotes or an object with "url", found ['),
        ('["a"]\n,', "2:1: expected nothing after the closing ], found ,"),
        ('[\n "a]', "2:2: this is not JSON: unterminated string starting at"),
        ('["a\nb"]', "1:4: this is not JSON: invalid control character at"),
        ('[{"url": "a",\n "weight" 2}]', "2:11: this is not JSON: expecting ':' delimiter"),
        (
            '["a",\n{"weight": ' + "9" * 5000 + "}]",
            "2:1: this element is nested too deeply, or has a number of too many digits",
        ),
        (
            '[{"url": ' + "[" * 100_000,
            "1:2: this element is nested too deeply, or has a number of too many digits",
        ),
    ],
)  # fmt: skip
def test_what_is_not_such_an_array_is_told_at_its_line_and_column(text: str, message: str) -> None:
    assert failure(text) == f"s.json:{message}"


def test_one_long_line_takes_no_longer_than_many_short_ones() -> None:
    counted: list[int] = []

    class Text(str):
        def count(self, x: str, *bounds: int) -> int:  # type: ignore[override]
            counted.append(bounds[1] - bounds[0])
            return super().count(x, *bounds)

    text = Text("[" + ",".join(['"a"'] * 1000) + "]")
    assert len(list(elements(text, "s.json"))) == 1000
    assert sum(counted) <= len(text)
