"""Where access lines go."""

import os
from pathlib import Path
from typing import Any

import pytest

from comfyproxy.service import output
from comfyproxy.service.output import Console, LogFile, open_output


def test_a_file_is_appended_to(tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    path.write_text("before\n")
    log = open_output(str(path))
    log.write(b"one\n")
    log.close()
    assert path.read_text() == "before\none\n"


def test_reopening_begins_a_new_file_where_the_old_one_was_moved_away(tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    log = LogFile(str(path))
    log.write(b"old\n")
    path.rename(tmp_path / "access.log.1")
    log.reopen()
    log.write(b"new\n")
    log.close()
    assert (path.read_text(), (tmp_path / "access.log.1").read_text()) == ("new\n", "old\n")


def test_the_old_file_goes_on_when_no_new_one_can_be_opened(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "logs"
    folder.mkdir()
    log = LogFile(str(folder / "access.log"))
    folder.rename(tmp_path / "moved")
    log.reopen()
    log.write(b"kept\n")
    log.close()
    assert (tmp_path / "moved" / "access.log").read_text() == "kept\n"
    assert "cannot be opened anew" in caplog.text


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no /dev/full")
def test_a_full_disk_loses_lines_and_says_so_once(caplog: pytest.LogCaptureFixture) -> None:
    log = LogFile("/dev/full")
    log.write(b"one\n")
    log.write(b"two\n")
    log.close()
    assert caplog.text.count("cannot be written") == 1


def test_the_console_writes_lines_as_they_are(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(output, "_is_detached", lambda: False)
    Console().write(b"[LoadBalancer] Routing request to http://a:1 (0/1)\n")
    assert capfd.readouterr().out == "[LoadBalancer] Routing request to http://a:1 (0/1)\n"


def test_a_daemon_logs_many_lines_as_one_event(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(output, "_is_detached", lambda: True)
    with caplog.at_level("INFO"):
        Console().write(b"one\ntwo\n")
    assert [record.getMessage() for record in caplog.records] == ["one\ntwo"]


def test_a_console_whose_reader_has_gone_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(descriptor: int, data: Any) -> int:
        raise BrokenPipeError

    monkeypatch.setattr(output, "_is_detached", lambda: False)
    monkeypatch.setattr(output.os, "write", broken)
    Console().write(b"line\n")
