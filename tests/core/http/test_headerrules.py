"""Rules for the fields of requests and answers."""

import re

import pytest

from comfyproxy.core.http.headerrules import (
    VARIABLES,
    HeaderRule,
    HeaderRules,
    Side,
    compile_rules,
    lookup,
    parse_rule,
)
from comfyproxy.core.http.headers import Forwarder
from comfyproxy.core.http.http1 import parse_request_head
from comfyproxy.core.http.trust import Trust

VALUES = {name: name.upper().encode() for name in VARIABLES}


def rules(*texts: str) -> HeaderRules:
    return HeaderRules(parse_rule(text, "request") for text in texts)


def applied(fields: bytes, *texts: str) -> bytes:
    return rules(*texts).apply(fields, VALUES.__getitem__)


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("set X-A: b", HeaderRule("set", "X-A", "b")),
        ("add X-A:b", HeaderRule("add", "X-A", "b")),
        ("set  X-A :  b c: d ", HeaderRule("set", "X-A", "b c: d")),
        ("remove X-A", HeaderRule("remove", "X-A")),
        ("remove X-A:", HeaderRule("remove", "X-A")),
        ("set Host: a.example:8080", HeaderRule("set", "Host", "a.example:8080")),
        ("set host: {host}", HeaderRule("set", "host", "{host}")),
        ('set NEL: {"group": "a"}', HeaderRule("set", "NEL", '{"group": "a"}')),
        ("set X-A: \xe9", HeaderRule("set", "X-A", "\xe9")),
    ],
)
def test_a_rule_is_read(text: str, rule: HeaderRule) -> None:
    assert parse_rule(text, "request") == rule


@pytest.mark.parametrize("text", ["set X-A: b", "add X-A: {client}", "remove X-A"])
def test_a_rule_is_shown_as_it_is_written(text: str) -> None:
    assert str(parse_rule(text, "request")) == text


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "is not a rule for header fields; write for example"),
        ("X-A: b", "is not a rule"),
        ("replace X-A: b", "is not a rule"),
        ("set : b", "is not a rule"),
        ("SET X-A: b", "is not a rule"),
        ("set X-A", "set X-A needs a value; remove X-A leaves the field out"),
        ("add X-A: ", "add X-A needs a value"),
        ("remove X-A: b", "remove X-A takes no value"),
        ("set X(A): b", "'X(A)' cannot name a header field"),
        ("set X\xc4: b", "cannot name a header field"),
        ("set X-A: b\nX-B: c", "the value of X-A has a line end or a control character in it"),
        ("set X-A: b\rc", "has a line end"),
        ("set X-A: b\0c", "has a line end"),
        ("set X-A: \u2192", "has characters that no header field can have"),
        ("set X-A: {clinet}", "there is no variable {clinet}; did you mean client?"),
        ("set X-A: {q}", "there is no variable {q}; known are client, host, peer"),
        (
            "set Content-Length: 0",
            "Content-Length is between this proxy and its peers; no rule may change it",
        ),
        ("remove transfer-encoding", "is between this proxy and its peers"),
        ("set Connection: close", "is between this proxy and its peers"),
        ("add Upgrade: h2c", "is between this proxy and its peers"),
        ("remove Sec-WebSocket-Key", "is between this proxy and its peers"),
        ("add Host: a.example", "Host can only be set, and only in requests"),
        ("remove Host", "Host can only be set"),
        ("set Host: a/b", "'a/b' is not a host; write a name, {host} or {server}"),
        ("set Host: {client}", "is not a host"),
    ],
)
def test_what_is_no_rule_is_refused_with_the_reason(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=re.escape(why)):
        parse_rule(text, "request")


def test_an_answer_has_no_host() -> None:
    side: Side = "response"
    with pytest.raises(ValueError, match="only in requests"):
        parse_rule("set Host: a.example", side)


@pytest.mark.parametrize(
    ("texts", "result"),
    [
        (["remove X-A"], b"X-Ab: 3\r\nB: 4\r\n"),
        (["set X-A: 5"], b"X-Ab: 3\r\nB: 4\r\nX-A: 5\r\n"),
        (["add X-A: 5"], b"X-A: 1\r\nx-a:2\r\nX-Ab: 3\r\nB: 4\r\nX-A: 5\r\n"),
        (["set X-A: 5", "set x-a: 6"], b"X-Ab: 3\r\nB: 4\r\nx-a: 6\r\n"),
        (["add C: 5", "set B: 6", "remove X-A"], b"X-Ab: 3\r\nB: 6\r\nC: 5\r\n"),
        (["add C: 5", "add C: 6"], b"X-A: 1\r\nx-a:2\r\nX-Ab: 3\r\nB: 4\r\nC: 5\r\nC: 6\r\n"),
        (["remove A", "remove X"], b"X-A: 1\r\nx-a:2\r\nX-Ab: 3\r\nB: 4\r\n"),
        (["remove X-A", "remove X-Ab", "remove B"], b""),
    ],
)
def test_fields_are_removed_set_and_added(texts: list[str], result: bytes) -> None:
    assert applied(b"X-A: 1\r\nx-a:2\r\nX-Ab: 3\r\nB: 4\r\n", *texts) == result


@pytest.mark.parametrize("spelt", [b"X_User_Id", b"x-user_id", b"X.User.Id", b"X~user-ID"])
def test_no_other_spelling_of_a_field_that_is_ours_passes(spelt: bytes) -> None:
    fields = b"A: 1\r\n" + spelt + b": 0\r\nX-User-Ids: 2\r\nXUserId: 3\r\n"
    assert applied(fields, "remove X-User-Id") == b"A: 1\r\nX-User-Ids: 2\r\nXUserId: 3\r\n"
    assert spelt not in applied(fields, "set X-User-Id: 7")


def test_names_are_names_and_not_expressions() -> None:
    assert applied(b"X.A+: 1\r\nX-AA: 2\r\n", "remove X.A+") == b"X-AA: 2\r\n"


def test_variables_are_filled_in_where_they_stand() -> None:
    text = 'set X-A: {client} for {host}, {"client"} {scheme}{server}'
    assert applied(b"", text) == b'X-A: CLIENT for HOST, {"client"} SCHEMESERVER\r\n'


def test_a_variable_that_no_rule_has_is_not_looked_up() -> None:
    def value_of(name: str) -> bytes:
        raise AssertionError(name)

    assert rules("set X-A: b", "add X-B: c").apply(b"", value_of) == b"X-A: b\r\nX-B: c\r\n"
    assert rules("set X-A: b").host(b"a.example", value_of) == b"a.example"


@pytest.mark.parametrize(
    ("text", "host"),
    [("set Host: b.example", b"b.example"), ("set Host: {server}", b"SERVER"), ("set X-A: b", b"a.example")],
)
def test_the_host_can_be_set(text: str, host: bytes) -> None:
    assert rules(text).host(b"a.example", VALUES.__getitem__) == host
    assert b"Host" not in applied(b"", text)


def test_no_rules_are_nothing() -> None:
    assert compile_rules(()) is None
    assert isinstance(compile_rules([HeaderRule("remove", "X-A")]), HeaderRules)


def test_variables_say_what_is_known_of_a_request() -> None:
    head = parse_request_head(
        b"GET / HTTP/1.1\r\nHost: a.example\r\n"
        b"X-Forwarded-For: 203.0.113.5\r\nX-Forwarded-Proto: https\r\n\r\n"
    )
    forwarder = Forwarder(b"10.0.0.1", b"http", b"us", Trust(["10.0.0.0/8"]))
    value_of = lookup(head, forwarder, b"gpu1:8188", lambda: "id-1")
    assert {name: value_of(name) for name in VARIABLES} == {
        "client": b"203.0.113.5",
        "host": b"a.example",
        "peer": b"10.0.0.1",
        "request_id": b"id-1",
        "scheme": b"https",
        "server": b"gpu1:8188",
    }
