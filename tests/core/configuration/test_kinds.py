"""How values are written."""

import re

import pytest

from comfyproxy.core.balancing.ratelimits import RateLimit
from comfyproxy.core.configuration.kinds import (
    BOUND,
    COUNT,
    DIRECTORY,
    DURATION,
    ENDPOINT,
    FILE,
    FLAG,
    NAME_SERVER,
    NETWORK,
    NUMBER,
    PERCENT,
    PERIOD,
    PROBE,
    RATE_LIMIT,
    SERVER_LIST,
    SIZE,
    STATUSES,
    URL,
    Kind,
    choice,
)

COLOUR = choice("red", "green")


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        (FLAG, "true", True),
        (FLAG, "Yes", True),
        (FLAG, "on", True),
        (FLAG, "1", True),
        (FLAG, "false", False),
        (FLAG, "no", False),
        (FLAG, "OFF", False),
        (FLAG, "0", False),
        (DURATION, "30", 30),
        (DURATION, "1.5", 1.5),
        (DURATION, "0", 0),
        (DURATION, "500ms", 0.5),
        (DURATION, "30s", 30),
        (DURATION, "5m", 300),
        (DURATION, "1.5h", 5400),
        (DURATION, "1d", 86_400),
        (PERIOD, "500ms", 0.5),
        (PROBE, "comfyui", "comfyui"),
        (PROBE, "http:/health?deep=1", "http:/health?deep=1"),
        (STATUSES, "200", ((200, 200),)),
        (STATUSES, "200-299, 401", ((200, 299), (401, 401))),
        (SIZE, "0", 0),
        (SIZE, "65536", 65_536),
        (SIZE, "64K", 65_536),
        (SIZE, "64k", 65_536),
        (SIZE, "1M", 1 << 20),
        (SIZE, "2GB", 2 << 30),
        (SIZE, "2GiB", 2 << 30),
        (BOUND, "16K", 16_384),
        (COUNT, "200", 200),
        (NUMBER, "0", 0),
        (NUMBER, "1024", 1024),
        (RATE_LIMIT, "10/s", RateLimit(10, "s", 10)),
        (RATE_LIMIT, "off", None),
        (PERCENT, "0", 0.0),
        (PERCENT, "20%", 0.2),
        (PERCENT, "12.5%", 0.125),
        (PERCENT, "100", 1.0),
        (NETWORK, "10.0.0.0/8", "10.0.0.0/8"),
        (NETWORK, "127.0.0.1", "127.0.0.1/32"),
        (NETWORK, "FD00::/8", "fd00::/8"),
        (NAME_SERVER, "10.0.0.53", ("10.0.0.53", 53)),
        (NAME_SERVER, "127.0.0.1:8600", ("127.0.0.1", 8600)),
        (NAME_SERVER, "FD00::53", ("fd00::53", 53)),
        (NAME_SERVER, "[::1]:8600", ("::1", 8600)),
        (ENDPOINT, "tcp:8080", "tcp:8080"),
        (ENDPOINT, "tcp:8080:interface=127.0.0.1", "tcp:8080:interface=127.0.0.1"),
        (ENDPOINT, r"tcp6:80:interface=\:\:1", r"tcp6:80:interface=\:\:1"),
        (ENDPOINT, "unix:/run/comfyproxy.sock", "unix:/run/comfyproxy.sock"),
        (ENDPOINT, "systemd:domain=INET:index=0", "systemd:domain=INET:index=0"),
        (COLOUR, "green", "green"),
        (FILE, "servers.txt", "servers.txt"),
        (DIRECTORY, "dist", "dist"),
        (URL, "http://localhost:5173", "http://localhost:5173"),
        (SERVER_LIST, "http://a, http://b", "http://a, http://b"),
    ],
)
def test_a_value_is_read(kind: Kind, text: str, value: object) -> None:
    assert kind.parse(text) == value
    assert kind.parse(kind.show(value)) == value


@pytest.mark.parametrize(
    ("kind", "text", "reason"),
    [
        (FLAG, "maybe", "'maybe' is neither true nor false"),
        (FLAG, "", "'' is neither true nor false"),
        (DURATION, "5x", "'5x' is not a duration; write for example 30, 500ms, 30s, 5m or 1h"),
        (DURATION, "-1", "'-1' is not a duration; write for example 30, 500ms, 30s, 5m or 1h"),
        (DURATION, "inf", "'inf' is not a duration; write for example 30, 500ms, 30s, 5m or 1h"),
        (DURATION, "", "'' is not a duration; write for example 30, 500ms, 30s, 5m or 1h"),
        (SIZE, "64X", "'64X' is not a number of bytes; write for example 65536, 64K or 1M"),
        (SIZE, "1.5M", "'1.5M' is not a number of bytes; write for example 65536, 64K or 1M"),
        (SIZE, "64B", "'64B' is not a number of bytes; write for example 65536, 64K or 1M"),
        (BOUND, "0", "0 would let nothing through"),
        (BOUND, "x", "'x' is not a number of bytes; write for example 65536, 64K or 1M"),
        (PERIOD, "0", "0 would be no time at all"),
        (PERIOD, "x", "'x' is not a duration; write for example 30, 500ms, 30s, 5m or 1h"),
        (PROBE, "http:", "'http:' is no check; write comfyui, tcp, none, or for example http:/health"),
        (
            PROBE,
            "http:/a b",
            "'http:/a b' is no check; write comfyui, tcp, none, or for example http:/health",
        ),
        (STATUSES, "299-200", "'299-200' are no statuses; write for example 200-399 or 200,204"),
        (STATUSES, "100", "'100' are no statuses; write for example 200-399 or 200,204"),
        (COUNT, "0", "'0' is not a whole number from 1 to 999999999"),
        (NUMBER, "-1", "'-1' is not a whole number from 0 to 999999999"),
        (PERCENT, "101%", "'101%' is not a share from 0% to 100%; write for example 20%"),
        (PERCENT, "a fifth", "'a fifth' is not a share from 0% to 100%; write for example 20%"),
        (COUNT, "1e3", "'1e3' is not a whole number from 1 to 999999999"),
        (NETWORK, "10.0.0.1/8", "'10.0.0.1/8' goes on after its mask; write 10.0.0.0/8"),
        (NAME_SERVER, "ns1", "'ns1' is not a name server; write for example 10.0.0.53 or [::1]:8600"),
        (NAME_SERVER, "10.0.0.1:0", "0 is not a port; there are those from 1 to 65535"),
        (NAME_SERVER, "10.0.0.1:70000", "70000 is not a port; there are those from 1 to 65535"),
        (NAME_SERVER, "fe80::1%eth0", "a name server has no IPv6 zone; remove %eth0"),
        (NAME_SERVER, "::50%\x1b", "a name server has no IPv6 zone; remove %\x1b"),
        (NETWORK, "fe80::%eth0/64", "a network has no IPv6 zone; remove %eth0"),
        (NETWORK, "fe80::1%eth0", "a network has no IPv6 zone; remove %eth0"),
        (NETWORK, "intern", "'intern' is not a network; write for example 10.0.0.0/8 or fd00::/8"),
        (ENDPOINT, "8080", "'8080' is not a Twisted endpoint; write tcp:8080"),
        (ENDPOINT, ":8080", "':8080' is not a Twisted endpoint; write tcp:8080"),
        (ENDPOINT, "0.0.0.0:80", "'0.0.0.0:80' is not a Twisted endpoint; write tcp:80:interface=0.0.0.0"),
        (
            ENDPOINT,
            "localhost:80",
            "'localhost:80' is not a Twisted endpoint; write tcp:80:interface=localhost",
        ),
        (ENDPOINT, "[::1]:80", r"'[::1]:80' is not a Twisted endpoint; write tcp:80:interface=\:\:1"),
        (
            ENDPOINT,
            "everywhere",
            "'everywhere' is not a Twisted endpoint; write for example tcp:8080:interface=127.0.0.1",
        ),
        (COLOUR, "blue", "'blue' is not one of red, green"),
        (FILE, "", "the value is empty"),
    ],
)
def test_a_wrong_value_says_what_would_be_right(kind: Kind, text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(reason)}$"):
        kind.parse(text)


@pytest.mark.parametrize(
    ("kind", "value", "text"),
    [
        (DURATION, 0, "0"),
        (DURATION, 0.25, "250ms"),
        (DURATION, 0.0015, "1.5ms"),
        (DURATION, 1.1, "1100ms"),
        (DURATION, 117_777_777.5, "117777777.5s"),
        (DURATION, 999_999_999.5 * 86_400, "999999999.5d"),
        (DURATION, 75, "75s"),
        (DURATION, 1800, "30m"),
        (DURATION, 7200, "2h"),
        (DURATION, 172_800, "2d"),
        (NAME_SERVER, ("10.0.0.53", 53), "10.0.0.53:53"),
        (NAME_SERVER, ("::1", 8600), "[::1]:8600"),
        (STATUSES, ((200, 299), (401, 401)), "200-299,401"),
        (SIZE, 0, "0"),
        (PERCENT, 0.2, "20%"),
        (PERCENT, 0.125, "12.5%"),
        (SIZE, 1000, "1000"),
        (SIZE, 65_536, "64K"),
        (SIZE, 3 << 20, "3M"),
        (SIZE, 1 << 30, "1G"),
        (FLAG, True, "true"),
        (FLAG, False, "false"),
        (COUNT, 100_000, "100000"),
    ],
)
def test_a_value_is_shown_as_one_would_write_it(kind: Kind, value: object, text: str) -> None:
    assert kind.show(value) == text


def test_a_choice_shows_its_words_where_a_value_stands() -> None:
    assert (COLOUR.metavar, COLOUR.choices) == ("red|green", ("red", "green"))
