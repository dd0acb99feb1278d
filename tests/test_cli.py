"""The ``comfyproxy`` command, run in the process and, where it matters, out of it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from comfyproxy import __version__
from comfyproxy.cli import SUBCOMMANDS, main


@pytest.fixture(autouse=True)
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory of its own, and no variable of ours from outside."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith(("COMFYPROXY_", "DEV_SERVER_"))]:
        monkeypatch.delenv(name)
    return tmp_path


class TestCheck:
    def test_it_shows_the_pool_and_where_each_server_came_from(
        self, nowhere: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (nowhere / "servers.txt").write_text("http://a\nhttp://b weight=2\n")
        assert main(["check", "--file", "servers.txt", "--url", "http://c"]) == 0
        out, err = capsys.readouterr()
        assert [line.split() for line in out.splitlines()[-3:]] == [
            ["0", "http://c:80", "1", "--url"],
            ["1", "http://a:80", "1", "servers.txt:1"],
            ["2", "http://b:80", "2", "servers.txt:2"],
        ]
        assert err == ""

    def test_it_reads_the_environment(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setenv("DEV_SERVER_COMFYUI_URL", "http://server[1-3]:8188")
        assert main(["check"]) == 0
        assert "pool default: 3 servers" in capsys.readouterr().out

    def test_warnings_go_to_stderr(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["check", "--url", "http://localhost[8188-8190]"]) == 0
        out, err = capsys.readouterr()
        assert "pool default: 3 servers" in out
        assert err == (
            "--url:1: warning: http://localhost[8188-8190] is read as http://localhost:[8188-8190];"
            " write it that way\n"
        )

    def test_a_mistake_is_one_line_with_its_place_and_exit_status_1(
        self, nowhere: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (nowhere / "servers.txt").write_text("\nhttp://localhost:818[8-0]\n")
        assert main(["check", "--file", "servers.txt"]) == 1
        assert capsys.readouterr() == (
            "",
            "servers.txt:2:21: the range [8-0] runs backwards; put the smaller number first\n",
        )

    def test_json_is_one_object(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["check", "--json", "--url", "http://localhost[8188-8190]"]) == 0
        report = json.loads(capsys.readouterr().out)
        assert report["ok"] is True
        assert [server["url"] for server in report["pools"][0]["servers"]] == [
            "http://localhost:8188",
            "http://localhost:8189",
            "http://localhost:8190",
        ]
        assert len(report["warnings"]) == 1

    def test_json_of_a_mistake_is_one_too(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["check", "--json", "--url", "http://a:0"]) == 1
        out, err = capsys.readouterr()
        message = "the port 0 is not a number from 1 to 65535"
        assert json.loads(out) == {
            "ok": False,
            "error": {"message": message, "source": "--url", "line": None, "column": 10},
        }
        assert err == f"--url:10: {message}\n"

    @pytest.mark.parametrize(
        ("terminal", "no_color", "coloured"), [(True, "", True), (True, "1", False), (False, "", False)]
    )
    def test_colours_are_for_terminals(
        self,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
        terminal: bool,
        no_color: str,
        coloured: bool,
    ) -> None:
        monkeypatch.setattr(sys.stdout, "isatty", lambda: terminal)
        monkeypatch.setenv("NO_COLOR", no_color)
        main(["check"])
        assert ("\x1b[" in capsys.readouterr().out) == coloured

    def test_a_reader_that_has_seen_enough_is_no_mistake(self, nowhere: Path) -> None:
        command = f"{sys.executable} -m comfyproxy.cli check --url 'http://a[1-20000]' | head -1"
        result = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=True, timeout=30)
        assert (result.stdout, result.stderr) == ("listening on tcp:8080:interface=127.0.0.1\n", "")


class TestCommand:
    def test_every_subcommand_has_help(self, capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit) as caught:
            main(["--help"])
        assert caught.value.code == 0
        out = capsys.readouterr().out
        assert [one.name for one in SUBCOMMANDS if one.name not in out or one.summary not in out] == []

    def test_it_knows_its_version(self, capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit):
            main(["--version"])
        assert capsys.readouterr().out == f"comfyproxy {__version__}\n"

    @pytest.mark.parametrize(
        "arguments",
        [[], ["chek"], ["check", "--lisen", "x"], ["check", "--ur", "x"], ["demo", "--servers", "0"]],
    )
    def test_a_call_that_makes_no_sense_is_exit_status_2(
        self, arguments: list[str], capsys: pytest.CaptureFixture[str]
    ) -> None:
        with pytest.raises(SystemExit) as caught:
            main(arguments)
        assert caught.value.code == 2
        assert "usage: comfyproxy" in capsys.readouterr().err

    def test_checking_starts_no_reactor(self) -> None:
        code = (
            "import sys; from comfyproxy.cli import main; main(['check']);"
            " print({name.partition('.')[0] for name in sys.modules} & {'twisted', 'autobahn', 'rich'})"
        )
        command = [sys.executable, "-c", code]
        result = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30)
        assert result.stdout.splitlines()[-1] == "set()"
