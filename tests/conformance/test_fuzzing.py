"""The fuzzer's targets hold for what they start from, and what they assert can fail."""

from pathlib import Path

import pytest

from conformance.fuzzing import clients, configuration, messages, proxies
from conformance.fuzzing.__main__ import main
from conformance.fuzzing.targets import FOUND, TARGETS, seeds


@pytest.mark.parametrize("name", TARGETS)
def test_a_target_holds_for_all_its_seeds_and_for_what_once_failed_it(name: str) -> None:
    inputs = seeds(name)
    assert inputs
    for one in inputs:
        TARGETS[name].run(one)


@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.parametrize("data", [b"", b"\0", b"\xff", b"\r\n\r\n", b"[" * 2000])
def test_a_target_holds_for_what_means_nothing(name: str, data: bytes) -> None:
    TARGETS[name].run(data)


def test_what_once_failed_is_kept_under_the_name_of_a_target() -> None:
    assert [path.name for path in FOUND.iterdir() if path.name not in TARGETS] == []


def test_every_target_says_what_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(TARGETS)
    assert all(line.endswith(".") for line in lines)


def test_an_input_can_be_tried_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "crash"
    path.write_bytes(b"GET / HTTP/1.1\r\n\r\n")
    assert main(["--target", "request", "--replay", str(path)]) == 0
    assert "1 inputs held" in capsys.readouterr().out


def test_a_reader_that_depends_on_how_octets_arrive_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(messages, "request_outcome", len)
    with pytest.raises(AssertionError):
        messages.request(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")


def test_a_request_that_h11_would_refuse_is_found() -> None:
    with pytest.raises(Exception, match="illegal"):
        proxies.check_requests(b"GET / HTTP/1.1\r\nHost: a\r\nX\0: 1\r\n\r\n")


def test_a_request_without_via_is_found() -> None:
    with pytest.raises(AssertionError):
        proxies.check_requests(b"GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 1\r\n\r\n")


def test_an_answer_with_a_field_of_another_hop_is_found() -> None:
    with pytest.raises(AssertionError):
        proxies.check_answer(proxies.REQUESTS[0], b"HTTP/1.1 200 OK\r\nKeep-Alive: x\r\n\r\n")


def test_a_list_that_is_not_read_back_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(configuration.Address, "__str__", lambda address: "http://other:1")
    with pytest.raises(AssertionError):
        configuration.servers(b"http://a:1")


def test_a_cookie_that_is_left_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clients.BackendCookie, "without", lambda cookie, value: value)
    with pytest.raises(AssertionError):
        clients.cookie(b"comfyproxy=1")
