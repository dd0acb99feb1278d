"""The options of ``twistd comfyproxy``."""

from pathlib import Path

import pytest
from twisted.python import usage

from comfyproxy.core.configuration.commandline import EVERYDAY
from comfyproxy.core.configuration.kinds import FLAG
from comfyproxy.core.configuration.options import OPTIONS
from comfyproxy.service.usage import TableOptions


def parsed(*arguments: str) -> TableOptions:
    options = TableOptions()
    options.parseOptions(arguments)
    return options


def given(*arguments: str) -> dict[str, object]:
    return {key: value for key, value in parsed(*arguments).command_line().items() if value}


def test_what_is_not_given_leaves_the_word_to_weaker_sources() -> None:
    assert given() == {}


def test_repeatable_options_are_collected() -> None:
    arguments = (
        "--url",
        "http://a",
        "--file=b",
        "--url",
        "http://c",
        "--trusted-proxy",
        "::1",
        "--listen=tcp:80",
    )
    assert given(*arguments) == {
        "url": ["http://a", "http://c"],
        "file": ["b"],
        "trusted_proxy": ["::1"],
        "listen": ["tcp:80"],
    }


def test_two_command_lines_do_not_share_their_lists() -> None:
    assert given("--url", "http://a")["url"] == ["http://a"]
    assert given("--url", "http://b")["url"] == ["http://b"]


@pytest.mark.parametrize("option", OPTIONS, ids=lambda option: option.name)
def test_every_option_of_the_table_is_taken(option: object) -> None:
    name, key = option.name, option.key  # type: ignore[attr-defined]
    if option.kind is FLAG:  # type: ignore[attr-defined]
        assert given(f"--{name}") == {key: True}
    else:
        repeatable = option.repeatable  # type: ignore[attr-defined]
        assert given(f"--{name}", "x") == {key: ["x"] if repeatable else "x"}


def test_an_unknown_option_is_refused() -> None:
    with pytest.raises(usage.UsageError, match="lisen"):
        parsed("--lisen", "tcp:80")


def test_help_is_that_of_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    text = parsed().getUsage()
    assert "\nServers:\n  --url URLS " in text
    assert {option.name for option in OPTIONS if f"\n  --{option.name}" in text} == EVERYDAY


def test_all_help_shows_every_option(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    with pytest.raises(SystemExit):
        parsed("--help-all")
    text = capsys.readouterr().out
    assert "\nTimeouts (0: none):\n  --connect-timeout TIME " in text
    assert all(f"\n  --{option.name}" in text for option in OPTIONS)


def test_help_says_what_a_subclass_is_for() -> None:
    class Options(TableOptions):
        longdesc = "Balances things."

    assert "Balances things." in Options().getUsage()


def test_a_shell_completes_files_directories_and_words() -> None:
    actions = TableOptions.compData.optActions
    assert isinstance(actions["file"], usage.CompleteFiles)
    assert isinstance(actions["static"], usage.CompleteDirs)
    assert isinstance(actions["access-log"], usage.CompleteList)
    assert "connect-timeout" not in actions


def test_its_sources_are_those_of_the_command_line_and_the_rest(tmp_path: Path) -> None:
    (tmp_path / "tap.conf").write_text("debug = true\n")
    sources = parsed("--url", "http://a").sources({"COMFYPROXY_ACCESS_LOG": "json"}, str(tmp_path))
    config = sources.load().config
    assert (config.debug, config.access_log) == (True, "json")
    assert [address.url for address in config.pools["default"].addresses] == ["http://a:80"]
