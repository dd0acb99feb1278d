"""The one table of options, and what is made of it."""

from collections import Counter
from dataclasses import fields

import pytest

from comfyproxy.core.config import Limits, Timeouts
from comfyproxy.core.configuration.option import Option
from comfyproxy.core.configuration.options import (
    LIMIT_OPTIONS,
    OPTION,
    OPTIONS,
    TIMEOUT_OPTIONS,
)


def test_no_two_options_share_a_name_or_a_variable() -> None:
    names = Counter(option.name for option in OPTIONS)
    variables = Counter(option.environment_variable for option in OPTIONS)
    assert set(names.values()) == set(variables.values()) == {1}
    assert list(OPTION.values()) == list(OPTIONS)


@pytest.mark.parametrize(
    ("key", "variable"),
    [
        ("url", "DEV_SERVER_COMFYUI_URL"),
        ("file", "DEV_SERVER_COMFYUI_FILE"),
        ("listen", "COMFYPROXY_LISTEN"),
        ("access_log_file", "COMFYPROXY_ACCESS_LOG_FILE"),
        ("tcp", "COMFYPROXY_TCP"),
    ],
)
def test_the_variable_of_an_option(key: str, variable: str) -> None:
    assert OPTION[key].environment_variable == variable


@pytest.mark.parametrize("option", OPTIONS, ids=lambda option: option.name)
def test_defaults_are_values_that_one_could_write(option: Option) -> None:
    defaults = (option.default or ()) if option.repeatable else (option.default,)
    written = [option.kind.show(value) for value in defaults if value is not None]
    assert [option.kind.parse(text) for text in written] == [one for one in defaults if one is not None]
    assert option.default_text == " ".join(written)


@pytest.mark.parametrize("one", fields(Timeouts), ids=lambda one: one.name)
def test_every_timeout_has_an_option_with_its_default(one: object) -> None:
    name = one.name  # type: ignore[attr-defined]
    assert TIMEOUT_OPTIONS[name].default == getattr(Timeouts(), name)


@pytest.mark.parametrize("one", fields(Limits), ids=lambda one: one.name)
def test_every_limit_has_an_option_with_its_default(one: object) -> None:
    name = one.name  # type: ignore[attr-defined]
    assert LIMIT_OPTIONS[name].default == getattr(Limits(), name)


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("url", "http://127.0.0.1:8188"),
        ("listen", "tcp:8080:interface=127.0.0.1"),
        ("access_log", "routing"),
        ("response_timeout", "30m"),
        ("max_head", "64K"),
        ("static", ""),
        ("trusted_proxy", ""),
    ],
)
def test_help_names_a_default_that_says_something(key: str, text: str) -> None:
    option = OPTION[key]
    assert option.default_text == text
    assert option.help == (f"{option.doc} (default: {text})" if text else option.doc)


def test_help_does_not_say_that_flags_are_off() -> None:
    assert OPTION["debug"].help == OPTION["debug"].doc
