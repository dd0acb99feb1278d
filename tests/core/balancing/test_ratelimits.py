"""Rate limits: who a client is, how often it may ask, and what is kept of it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comfyproxy.core.balancing.ratelimits import (
    LONGEST_KEY,
    RateLimit,
    RateLimiter,
    admit,
    client_key,
    parse_rate_limit,
)
from comfyproxy.core.http.http1 import parse_request_head

NOON = 1_800_000_000.0


def request(*fields: bytes):
    return parse_request_head(
        b"".join(line + b"\r\n" for line in (b"GET / HTTP/1.1", b"Host: a", *fields, b""))
    )


def asked(limiter: RateLimiter, key: str, *times: float) -> list[float]:
    return [limiter.take(key, NOON + time) for time in times]


@pytest.mark.parametrize(
    ("text", "limit"),
    [
        ("10/s", RateLimit(10, "s", 10)),
        ("10/s,burst=20", RateLimit(10, "s", 20)),
        ("0.5/s", RateLimit(0.5, "s", 1)),
        ("300/m", RateLimit(300, "m", 5)),
        ("1000/h , burst=50 , by=address", RateLimit(1000, "h", 50)),
        ("1000/d,by=cookie:session", RateLimit(1000, "d", 1, "cookie", "session")),
        ("5/s,by=header:X-API-Key,burst=7", RateLimit(5, "s", 7, "header", "X-API-Key")),
        ("off", None),
    ],
)
def test_it_is_read(text, limit):
    assert parse_rate_limit(text) == limit


@pytest.mark.parametrize(
    "text",
    [
        "10/s,burst=10,by=address",
        "0.5/m,burst=3,by=cookie:a",
        "7/h,burst=1,by=header:X",
        "999999999.001/s,burst=1,by=address",
        "0.001/d,burst=1,by=address",
    ],
)
def test_it_is_shown_as_it_is_written(text):
    assert str(parse_rate_limit(text)) == text


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("10", "'10' is not a rate; write for example 10/s"),
        ("", "'' is not a rate"),
        ("0/s", "'0/s' is not a rate"),
        ("-1/s", "not a rate"),
        ("10/w", "not a rate"),
        ("10/s,burst=0", "burst=0 is not a whole number"),
        ("10/s,burst", "burst= is not a whole number"),
        ("10/s,burst=x", "burst=x is not a whole number"),
        ("10/s,brust=2", "'brust' is not known of a rate limit"),
        ("10/s,by=cookie", "by=cookie tells no clients apart"),
        ("10/s,by=address:x", "by=address:x tells no"),
        ("10/s,by=header:X Y", "by=header:X Y tells no"),
        ("10/s,by=moon", "by=moon tells no"),
    ],
)
def test_what_is_not_one_is_told_in_a_sentence(text, complaint):
    with pytest.raises(ValueError, match=complaint.replace("?", r"\?")):
        parse_rate_limit(text)


@pytest.mark.parametrize(
    ("address", "key"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("unknown", "unknown"),
        ("a:b", "a:b"),
    ],
)
def test_a_client_is_an_address_or_the_network_of_one(address, key):
    assert client_key(address) == key


def test_a_burst_passes_and_then_one_for_each_interval():
    limiter = RateLimiter(RateLimit(2, "s", 3))
    assert asked(limiter, "a", 0, 0, 0) == [0, 0, 0]
    assert asked(limiter, "a", 0) == [pytest.approx(0.5)]
    assert asked(limiter, "a", 0.5) == [0]
    assert asked(limiter, "a", 0.75) == [pytest.approx(0.25)]
    assert asked(limiter, "a", 1.0, 10, 10, 10) == [0, 0, 0, 0]
    assert asked(limiter, "a", 10) == [pytest.approx(0.5)]
    assert limiter.refused == 3


def test_asking_too_early_does_not_put_off_when_one_may_ask():
    limiter = RateLimiter(RateLimit(1, "m", 1))
    assert asked(limiter, "a", 0) == [0]
    for second in range(1, 60):
        assert asked(limiter, "a", second) == [pytest.approx(60 - second)]
    assert asked(limiter, "a", 60) == [0]


def test_each_client_has_its_own():
    limiter = RateLimiter(RateLimit(1, "s", 1))
    assert asked(limiter, "a", 0) + asked(limiter, "b", 0) == [0, 0]
    assert asked(limiter, "a", 0) == asked(limiter, "b", 0) == [pytest.approx(1)]


def test_a_clock_that_goes_back_locks_nobody_out_for_longer_than_that():
    limiter = RateLimiter(RateLimit(1, "s", 1))
    assert asked(limiter, "a", 0) == [0]
    (wait,) = asked(limiter, "a", -5)
    assert wait == pytest.approx(6)
    assert asked(limiter, "a", 1) == [0]


def test_who_may_ask_as_if_new_is_forgotten():
    limiter = RateLimiter(RateLimit(1, "s", 1))
    for number in range(100):
        limiter.take(f"early {number}", NOON)
    for number in range(100):
        limiter.take(f"late {number}", NOON + 2)
    assert len(limiter) == 100


def test_the_table_does_not_grow_and_the_limits_of_those_who_go_on_asking_hold():
    limiter = RateLimiter(RateLimit(1, "h", 1), size=100)
    assert asked(limiter, "a", 0) == [0]
    for number in range(10_000):
        limiter.take(f"stranger {number}", NOON)
        if number % 50 == 0:
            assert limiter.take("a", NOON) > 0
        assert len(limiter) <= 100


@given(st.lists(st.floats(0, 3), max_size=60), st.integers(1, 5), st.integers(1, 20))
def test_whenever_a_client_asks_no_more_pass_than_burst_and_rate_allow(pauses, burst, rate):
    limiter = RateLimiter(RateLimit(rate, "s", burst))
    now, passed = NOON, []
    for pause in pauses:
        now += pause
        wait = limiter.take("a", now)
        assert wait <= 1 / rate + 1e-5
        if not wait:
            passed.append(now)
    for first in range(len(passed)):
        for last in range(first, len(passed)):
            allowed = burst + (passed[last] - passed[first]) * rate
            assert last - first + 1 <= allowed + 1e-3


def test_clients_are_told_apart_by_address():
    limiter = RateLimiter(RateLimit(1, "s", 1))
    assert limiter.key(request(b"Cookie: a=1"), "2001:db8::1") == "2001:db8::/64"


@pytest.mark.parametrize(
    ("fields", "key"),
    [
        ([b"Cookie: session=abc"], b"abc"),
        ([b"Cookie: x=1; session=abc; session=def"], b"abc"),
        ([b"Cookie: x=1", b"Cookie: session=abc"], b"abc"),
        ([b"Cookie: xsession=1"], "192.0.2.1"),
        ([b"Cookie: session="], "192.0.2.1"),
        ([], "192.0.2.1"),
    ],
)
def test_clients_are_told_apart_by_a_cookie_and_without_one_by_address(fields, key):
    limiter = RateLimiter(RateLimit(1, "s", 1, "cookie", "session"))
    assert limiter.key(request(*fields), "192.0.2.1") == key


@pytest.mark.parametrize(
    ("fields", "key"),
    [([b"x-api-KEY:  k "], b"k"), ([b"X-API-Key: k", b"X-API-Key: l"], b"k,l"), ([b"X-API: k"], "192.0.2.1")],
)
def test_clients_are_told_apart_by_a_header_and_without_one_by_address(fields, key):
    limiter = RateLimiter(RateLimit(1, "s", 1, "header", "X-API-Key"))
    assert limiter.key(request(*fields), "192.0.2.1") == key


def test_of_a_long_key_only_a_digest_is_kept():
    limiter = RateLimiter(RateLimit(1, "s", 1, "header", "X"))
    longest, longer, other = (limiter.key(request(b"X: " + b"k" * size), "") for size in (64, 65, 66))
    assert longest == b"k" * LONGEST_KEY
    assert len(longer) == len(other) == 16
    assert longer != other


def test_all_of_several_limits_hold_and_what_one_refuses_counts_with_none():
    hourly, secondly = RateLimiter(RateLimit(3, "h", 3)), RateLimiter(RateLimit(1, "s", 1))
    head = request()
    passed = []
    for second in range(5):
        for _ in range(10):
            refusal = admit((hourly, secondly), head, "192.0.2.1", NOON + second)
            passed.append(refusal is None)
    assert passed.count(True) == 3
    assert refusal is not None
    assert refusal[0] is hourly
    assert refusal[1] == pytest.approx(1196)
    assert admit((), head, "192.0.2.1", NOON) is None


def test_what_is_given_back_for_nobody_changes_nothing():
    limiter = RateLimiter(RateLimit(1, "s", 1))
    limiter.give_back("nobody")
    assert len(limiter) == 0
