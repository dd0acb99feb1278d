"""What one option says of itself."""

import pytest

from comfyproxy.core.configuration.kinds import DURATION, FLAG, URL
from comfyproxy.core.configuration.option import CLIENTS, Option


def test_its_key_and_its_variable_come_from_its_name_unless_it_has_one_of_its_own() -> None:
    option = Option("head-timeout", CLIENTS, DURATION, "for the head")
    assert (option.key, option.environment_variable) == ("head_timeout", "COMFYPROXY_HEAD_TIMEOUT")
    assert Option("url", CLIENTS, URL, "it", variable="THE_URL").environment_variable == "THE_URL"


@pytest.mark.parametrize(
    ("option", "help"),
    [
        (Option("a", CLIENTS, DURATION, "for it", 90.0), "for it (default: 90s)"),
        (Option("a", CLIENTS, URL, "those", ("x", "y"), repeatable=True), "those (default: x y)"),
        (Option("a", CLIENTS, URL, "those", (), repeatable=True), "those"),
        (Option("a", CLIENTS, URL, "that"), "that"),
        (Option("a", CLIENTS, FLAG, "whether", False), "whether"),
    ],
)
def test_help_tells_the_default_where_it_says_something(option: Option, help: str) -> None:
    assert option.help == help
