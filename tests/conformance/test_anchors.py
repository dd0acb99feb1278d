"""The comparison with other proxies: messages as they are read, verdicts, reasons, and the page."""

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import pytest

from conformance.anchors import __main__ as anchors
from conformance.anchors.__main__ import PAGE
from conformance.anchors.backend import Backend
from conformance.anchors.laxer import EXPLAINED, outlived, reason, unexplained
from conformance.anchors.page import render
from conformance.anchors.results import OURS, Results
from conformance.anchors.rules import RULES, Rule, arrives
from conformance.anchors.trials import SECOND_PATIENCE, Result
from conformance.anchors.verdicts import verdict
from conformance.anchors.wire import Message, read_answer, read_request
from conformance.corpora import REQUESTS, RESPONSES, ROOT, Case, cases, rule_titles

REQUEST = Case("requests/invalid", "001-x", b"GET / HTTP/1.1\r\n\r\n", {"rule": 1})
ANSWER = Case("responses/invalid", "001-x", b"HTTP/1.1 200 OK\r\n\r\n", {"rule": 18})
WHOLE = Message(b"GET / HTTP/1.1", [], complete=True)
BROKEN = Message(b"GET / HTTP/1.1", [])


def answer(status: int, complete: bool = True) -> Message:
    return Message(b"HTTP/1.1 %d X" % status, [], complete=complete)


@pytest.mark.parametrize(
    ("raw", "body", "complete", "rest"),
    [
        (b"GET / HTTP/1.1\r\n\r\nmore", b"", True, b"more"),
        (b"GET / HTTP/1.1\r\nContent-Length: 2\r\n\r\nokmore", b"ok", True, b"more"),
        (b"GET / HTTP/1.1\r\nContent-Length: 2\r\n\r\no", b"o", False, b""),
        (
            b"GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n2;x\r\nok\r\n0\r\n\r\nmore",
            b"ok",
            True,
            b"more",
        ),
        (b"GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n", b"ok", False, b"0\r\n"),
        (b"GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n", b"", False, b"x\r\n"),
    ],
)
def test_a_request_is_read_to_its_end(raw: bytes, body: bytes, complete: bool, rest: bytes) -> None:
    message, behind = read_request(raw)
    assert message is not None
    assert (message.body, message.complete, behind) == (body, complete, rest)


def test_a_head_that_is_not_all_there_is_no_message() -> None:
    assert read_request(b"GET / HTTP/1.1\r\nHost: a\r\n")[0] is None
    assert read_answer(b"HTTP/1.1 200", "GET", True)[0] is None


def test_trailers_are_read() -> None:
    raw = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX-Sum: 1\r\n\r\n"
    message, _ = read_answer(raw, "GET", False)
    assert message is not None
    assert message.trailers == [(b"X-Sum", b"1")]


@pytest.mark.parametrize(
    ("raw", "method", "closed", "complete"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\nok", "GET", False, False),
        (b"HTTP/1.1 200 OK\r\n\r\nok", "GET", True, True),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n", "HEAD", False, True),
        (b"HTTP/1.1 103 Early\r\n\r\n", "GET", False, True),
    ],
)
def test_an_answer_ends_where_http_says(raw: bytes, method: str, closed: bool, complete: bool) -> None:
    message, _ = read_answer(raw, method, closed)
    assert message is not None
    assert message.complete == complete


@pytest.mark.parametrize(
    ("result", "word"),
    [
        (Result([answer(200)], [WHOLE]), "passed"),
        (Result([answer(400)], []), "400"),
        (Result([answer(103), answer(400)], []), "400"),
        (Result([answer(502)], [BROKEN]), "502"),
        (Result(closed=True), "closed"),
        (Result([], [BROKEN], closed=True), "closed"),
        (Result(), "waits"),
    ],
)
def test_the_verdict_on_a_request(result: Result, word: str) -> None:
    assert verdict(REQUEST, result) == word


@pytest.mark.parametrize(
    ("result", "word"),
    [
        (Result([answer(200)]), "passed"),
        (Result([answer(200, complete=False)], closed=True), "cut"),
        (Result([answer(502)]), "502"),
        (Result(closed=True), "closed"),
        (Result(), "waits"),
    ],
)
def test_the_verdict_on_an_answer(result: Result, word: str) -> None:
    assert verdict(ANSWER, result) == word


def results(**verdicts: str) -> Results:
    """Of one valid request: `ours` and `nginx`."""
    found = Results([(OURS, ""), ("nginx", "nginx version: nginx/1.22.1")])
    found.verdicts["requests/valid/001-simple"] = {OURS: verdicts["ours"], "nginx": verdicts["nginx"]}
    return found


def test_what_another_refuses_and_ours_passes_is_laxer_and_needs_a_reason() -> None:
    laxer = results(ours="passed", nginx="400").laxer()
    assert laxer == {"requests/valid/001-simple": ["nginx"]}
    assert unexplained(laxer) == ["requests/valid/001-simple"]


@pytest.mark.parametrize(("ours", "nginx"), [("400", "400"), ("400", "passed"), ("passed", "passed")])
def test_nothing_else_is_laxer(ours: str, nginx: str) -> None:
    assert results(ours=ours, nginx=nginx).laxer() == {}


def test_a_reason_that_nobody_needs_any_more_is_found() -> None:
    assert outlived([]) == list(EXPLAINED)
    assert "requests/valid/095-host-empty" not in outlived(["requests/valid/095-host-empty"])


def test_every_reason_is_about_a_case_that_there_is() -> None:
    names = [f"{case.folder}/{case.name}" for case in cases(*REQUESTS, *RESPONSES)]
    assert outlived(names) == []
    assert not any(reason(name) for name in names if "/invalid/" in name)


def test_a_rule_that_ours_breaks_is_named_with_what_it_should_be() -> None:
    found = results(ours="passed", nginx="passed")
    rule = RULES[0]
    found.rules[rule.name] = {OURS: "passed", "nginx": "passed"}
    assert list(found.broken_rules()) == [(rule.name, "passed", rule.wanted)]


def test_results_are_kept_as_json() -> None:
    found = results(ours="passed", nginx="400")
    kept = json.loads(json.dumps(found.to_json()))
    assert json.loads(json.dumps(Results.from_json(kept).to_json())) == kept


def test_the_page_has_a_column_for_each_peer_and_a_row_where_they_differ() -> None:
    found = results(ours="400", nginx="passed")
    found.verdicts["requests/invalid/001-two-blanks-after-the-method"] = {OURS: "400", "nginx": "passed"}
    page = "\n".join(render(found))
    assert "|  | comfyproxy | nginx 1.22 |" in page
    assert "001-two-blanks-after-the-method.http) | 400 | **passed** |" in page


def test_every_malformed_message_and_every_rule_is_on_the_page() -> None:
    page = PAGE.read_text()
    malformed = cases("requests/invalid", "responses/invalid")
    assert [case.name for case in malformed if f"{case.folder}/{case.name}.http" not in page] == []
    assert [rule.name for rule in RULES if f"| {rule.name} |" not in page] == []


def test_one_that_seems_to_wait_is_given_more_time(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []

    async def try_one(*trial: object) -> Result:
        tried.append(trial[5:])
        return Result([answer(200)], [WHOLE]) if len(tried) > 1 else Result()

    monkeypatch.setattr(anchors, "try_one", try_one)
    rule = Rule("any", "any", b"", arrives, "passed")
    assert asyncio.run(anchors.try_rule(Backend(), 0, rule)) == "passed"
    assert tried == [(), (SECOND_PATIENCE,)]


def test_every_rule_of_a_case_has_its_title() -> None:
    titles = rule_titles()
    assert {case.expected["rule"] for case in cases(*REQUESTS, *RESPONSES)} <= titles.keys()


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_the_daemon_keeps_every_rule_and_refuses_what_is_malformed(tmp_path: Path) -> None:
    kept = tmp_path / "found.json"
    command = [sys.executable, "-m", "conformance.anchors", "--peer", OURS, "--json", str(kept)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stdout + done.stderr
    found = Results.from_json(json.loads(kept.read_text()))
    refused, count = found.refusals(OURS)
    assert refused == count > 200
    assert len(found.rules) == len(RULES)
