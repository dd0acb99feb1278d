"""The options on a command line, and the help about them."""

from argparse import ArgumentParser

import pytest

from comfyproxy.core.configuration.commandline import EVERYDAY, HELP_FORMATTER, add_arguments
from comfyproxy.core.configuration.kinds import FLAG
from comfyproxy.core.configuration.options import OPTIONS


def parser(everything: bool = False) -> ArgumentParser:
    parser = ArgumentParser("comfyproxy", formatter_class=HELP_FORMATTER, allow_abbrev=False)
    add_arguments(parser, everything)
    return parser


def test_what_is_not_given_stays_none() -> None:
    assert set(vars(parser().parse_args([])).values()) == {None}


def test_repeatable_options_are_collected() -> None:
    arguments = parser().parse_args(["--url", "a", "--file=b", "--url", "c", "--trusted-proxy", "d"])
    assert (arguments.url, arguments.file, arguments.trusted_proxy) == (["a", "c"], ["b"], ["d"])


def test_flags_take_no_value_and_others_one() -> None:
    arguments = parser().parse_args(["--tcp", "--static", "dist"])
    assert (arguments.tcp, arguments.debug, arguments.static) == (True, None, "dist")


def test_the_options_for_every_day_are_options() -> None:
    assert {option.name for option in OPTIONS} >= EVERYDAY


def test_help_fits_a_screen_and_shows_what_is_needed_every_day(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    text = parser().format_help()
    shown = {option.name for option in OPTIONS if f"\n  --{option.name}" in text}
    assert shown == EVERYDAY
    assert "--help-all" in text
    assert text.count("\n") < 50
    assert max(map(len, text.splitlines())) <= 100


def test_all_help_shows_every_option_in_groups(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    with pytest.raises(SystemExit) as ended:
        parser().parse_args(["--help-all"])
    text = capsys.readouterr().out
    assert (ended.value.code, text) == (0, parser(everything=True).format_help())
    for option in OPTIONS:
        shown = f"--{option.name}" if option.kind is FLAG else f"--{option.name} {option.kind.metavar}"
        assert f"\n  {shown}" in text
    headings = dict.fromkeys(f"{option.section}:" for option in OPTIONS)
    assert [group.splitlines()[0] for group in text.split("\n\n")[2:]] == list(headings)
    assert max(map(len, text.splitlines())) <= 100
