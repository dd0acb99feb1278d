"""Server lists: the grammar, every example of the load-balancing guide, files, doubles, limits."""

import json
import time
from ipaddress import IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comfyproxy.core.configuration.addresses import (
    Address,
    Parsed,
    ServerList,
    parse_addresses,
    parse_json_file,
    parse_text_file,
)
from comfyproxy.core.configuration.diagnostics import Place
from comfyproxy.errors import ConfigError


def urls(parsed: Parsed | tuple[Address, ...]) -> list[str]:
    addresses = parsed.addresses if isinstance(parsed, Parsed) else parsed
    return [address.url for address in addresses]


def warnings(parsed: Parsed) -> list[str]:
    return [str(warning) for warning in parsed.warnings]


def numbered(pattern: str, first: int, last: int, width: int = 0) -> list[str]:
    return [pattern.format(f"{number:0{width}d}") for number in range(first, last + 1)]


class TestAddress:
    def test_its_url_always_has_the_port(self) -> None:
        assert Address("http", "server1", 80).url == "http://server1:80"

    def test_an_ipv6_host_is_bracketed_in_url_and_authority(self) -> None:
        address = Address("https", "fd00::1", 8443)
        assert (address.url, address.authority) == ("https://[fd00::1]:8443", "[fd00::1]:8443")

    @pytest.mark.parametrize(
        ("scheme", "port", "authority"),
        [
            ("http", 80, "a"),
            ("http", 8188, "a:8188"),
            ("https", 443, "a"),
            ("https", 80, "a:80"),
            ("tcp", 5432, "a:5432"),
        ],
    )
    def test_its_authority_leaves_out_the_port_of_the_scheme(
        self, scheme: str, port: int, authority: str
    ) -> None:
        assert Address(scheme, "a", port).authority == authority

    def test_it_is_the_same_server_with_another_weight(self) -> None:
        assert Address("http", "a", 80, weight=2).key == Address("http", "a", 80, name="x").key
        assert Address("http", "a", 80).key != Address("https", "a", 80).key

    def test_where_it_was_named_does_not_count_in_comparisons(self) -> None:
        assert Address("http", "a", 80, origin="--url") == Address("http", "a", 80, origin="servers.txt:1")


LOCALHOST_PORTS = ["http://localhost:8188", "http://localhost:8189", "http://localhost:8190"]
THREE_SERVERS = ["http://server1:8188", "http://server2:8188", "http://server3:8188"]

# The values of DEV_SERVER_COMFYUI_URL in the guide, as written there.
GUIDE_URLS = [
    ("http://server1:8188,http://server2:8188", THREE_SERVERS[:2]),
    ("http://server[1-100]:8188", numbered("http://server{}:8188", 1, 100)),
    ("http://localhost:8188", ["http://localhost:8188"]),
    ("http://server1:8188,http://server2:8188,http://server3:8188", THREE_SERVERS),
    ("http://server1:8188; http://server2:8188; http://server3:8188", THREE_SERVERS),
    ("http://192.168.1[1-50]:8188", numbered("http://192.168.1.{}:8188", 1, 50)),
    (
        "http://server[1-50]:8188,http://backup[1-30]:8188",
        numbered("http://server{}:8188", 1, 50) + numbered("http://backup{}:8188", 1, 30),
    ),
    ("http://server[1-50]:8188", numbered("http://server{}:8188", 1, 50)),
    ("http://localhost[8188-8190]", LOCALHOST_PORTS),
    ("http://localhost:8188,http://localhost:8189,http://localhost:8190", LOCALHOST_PORTS),
    ("http://worker[1-50]:8188", numbered("http://worker{}:8188", 1, 50)),
]

GUIDE_TEXT_FILES = [
    (
        "http://server1:8188\nhttp://server2:8188\nhttp://server3:8188\n"
        "# Comments starting with # are ignored\nhttp://worker[1-100]:8188\n",
        THREE_SERVERS + numbered("http://worker{}:8188", 1, 100),
    ),
    (
        "".join(f"http://dc{dc}-node[1-300]:8188\n" for dc in range(1, 5)),
        [url for dc in range(1, 5) for url in numbered(f"http://dc{dc}-node{{}}:8188", 1, 300)],
    ),
    (
        "# Primary data center\nhttp://dc1-worker[1-100]:8188\nhttp://dc1-gpu[1-50]:8188\n\n"
        "# Secondary data center\nhttp://dc2-worker[1-100]:8188\nhttp://dc2-gpu[1-50]:8188\n\n"
        "# Backup servers\nhttp://backup-west[1-20]:8188\nhttp://backup-east[1-20]:8188\n",
        numbered("http://dc1-worker{}:8188", 1, 100)
        + numbered("http://dc1-gpu{}:8188", 1, 50)
        + numbered("http://dc2-worker{}:8188", 1, 100)
        + numbered("http://dc2-gpu{}:8188", 1, 50)
        + numbered("http://backup-west{}:8188", 1, 20)
        + numbered("http://backup-east{}:8188", 1, 20),
    ),
]

GUIDE_JSON_FILES = [
    ([*THREE_SERVERS, "http://worker[1-100]:8188"], THREE_SERVERS + numbered("http://worker{}:8188", 1, 100)),
    (["http://server[1-500]:8188"], numbered("http://server{}:8188", 1, 500)),
    (
        [
            "http://compute-node[1-500]:8188",
            "http://gpu-worker[1-100]:8188",
            "http://backup-server[1-20]:8188",
        ],
        numbered("http://compute-node{}:8188", 1, 500)
        + numbered("http://gpu-worker{}:8188", 1, 100)
        + numbered("http://backup-server{}:8188", 1, 20),
    ),
    (
        [
            "http://api-pool-1[01-20]:8188",
            "http://api-pool-2[01-20]:8188",
            "http://api-pool-3[01-20]:8188",
            "http://gpu-pool[01-50]:8188",
            "http://cache-server[01-10]:8188",
        ],
        numbered("http://api-pool-1{}:8188", 1, 20, 2)
        + numbered("http://api-pool-2{}:8188", 1, 20, 2)
        + numbered("http://api-pool-3{}:8188", 1, 20, 2)
        + numbered("http://gpu-pool{}:8188", 1, 50, 2)
        + numbered("http://cache-server{}:8188", 1, 10, 2),
    ),
]


class TestGuide:
    @pytest.mark.parametrize(("text", "expected"), GUIDE_URLS)
    def test_every_list_of_urls_works(self, text: str, expected: list[str]) -> None:
        assert urls(parse_addresses(text)) == expected

    @pytest.mark.parametrize(("text", "expected"), GUIDE_TEXT_FILES)
    def test_every_text_file_works(self, text: str, expected: list[str]) -> None:
        assert parse_text_file(text, "s.txt").warnings == ()
        assert urls(parse_text_file(text, "s.txt")) == expected

    @pytest.mark.parametrize(("content", "expected"), GUIDE_JSON_FILES)
    def test_every_json_file_works(self, content: list[str], expected: list[str]) -> None:
        assert parse_json_file(json.dumps(content), "s.json").warnings == ()
        assert urls(parse_json_file(json.dumps(content, indent=2), "s.json")) == expected

    def test_what_will_not_work_says_why(self) -> None:
        with pytest.raises(ConfigError) as caught:
            parse_addresses("http://localhost:818[8-0]", "DEV_SERVER_COMFYUI_URL")
        assert str(caught.value) == (
            "DEV_SERVER_COMFYUI_URL:21: the range [8-0] runs backwards; put the smaller number first"
        )

    @pytest.mark.parametrize(
        ("text", "warning"),
        [
            (
                "http://localhost[8188-8190]",
                "http://localhost[8188-8190] is read as http://localhost:[8188-8190]; write it that way",
            ),
            (
                "http://192.168.1[1-50]:8188",
                "http://192.168.1[1-50]:8188 is read as http://192.168.1.[1-50]:8188; write it that way",
            ),
        ],
    )
    def test_what_lacks_a_mark_works_with_one_warning(self, text: str, warning: str) -> None:
        assert warnings(parse_text_file(f"# ours\n{text}", "s.txt")) == [f"s.txt:2:1: {warning}"]


class TestLists:
    @pytest.mark.parametrize(
        "text",
        [
            "http://a,http://b",
            "http://a;http://b",
            "  http://a , http://b ; ",
            ",http://a,,;http://b",
            "a\t,\tb",
            "http://a/,http://b/",
        ],
    )
    def test_commas_and_semicolons_divide_servers(self, text: str) -> None:
        assert urls(parse_addresses(text)) == ["http://a:80", "http://b:80"]

    @pytest.mark.parametrize("text", ["", "  ", ",;,"])
    def test_there_may_be_no_server(self, text: str) -> None:
        assert parse_addresses(text) == ()

    def test_servers_remember_where_they_were_named(self) -> None:
        assert parse_addresses("http://a", "DEV_SERVER_COMFYUI_URL")[0].origin == "DEV_SERVER_COMFYUI_URL"

    def test_attributes_follow_a_url(self) -> None:
        assert parse_addresses("http://a weight=2  max_conns=8\tname=gpu-a, http://b") == (
            Address("http", "a", 80, weight=2, max_conns=8, name="gpu-a"),
            Address("http", "b", 80),
        )

    @pytest.mark.parametrize(
        ("value", "backup"), [("1", True), ("true", True), ("0", False), ("false", False)]
    )
    def test_a_server_is_a_backup_or_is_not(self, value: str, backup: bool) -> None:
        assert parse_addresses(f"http://a backup={value}") == (Address("http", "a", 80, backup=backup),)
        (one,) = parse_json_file(f'[{{"url": "http://a", "backup": {int(backup)}}}]', "s.json").addresses
        assert one.backup is backup

    def test_attributes_belong_to_every_server_of_a_range(self) -> None:
        assert [address.weight for address in parse_addresses("http://a[1-3] weight=5")] == [5, 5, 5]

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("http://a, http://b:0", "20: the port 0 is not a number from 1 to 65535"),
            (
                "http://a http://b",
                "10: http://b is not an attribute; put a comma, a semicolon or a new line between servers",
            ),
            ("http://a wieght=2", "10: wieght is not an attribute of a server; did you mean weight?"),
            (
                "http://a colour=red",
                "10: colour is not an attribute of a server; known are backup, max_conns, name, weight",
            ),
            ("http://a weight=2 weight=2", "19: weight is given twice for one server"),
            (
                "http://a weight=0",
                "10: weight=0 does not work: a weight is from 1 to 65,535;"
                " remove the server to send it nothing",
            ),
            (
                "http://a weight=65536",
                "10: weight=65536 does not work: a weight is from 1 to 65,535;"
                " remove the server to send it nothing",
            ),
            (
                "http://a weight=1.5",
                "10: weight=1.5 does not work: this takes a whole number of up to 9 digits",
            ),
            (
                "http://a max_conns=-1",
                "10: max_conns=-1 does not work: this takes a whole number of up to 9 digits",
            ),
            (
                "http://a max_conns=",
                "10: max_conns= does not work: this takes a whole number of up to 9 digits",
            ),
            (
                "http://a name=a/b",
                "10: name=a/b does not work: a name has up to 64 letters, digits, dots, - and _",
            ),
            ("http://a backup=yes", "10: backup=yes does not work: this takes 1 or 0, in JSON true or false"),
            (
                "http://a[1-3] name=x",
                "1: http://a[1-3] stands for 3 servers, and a name is for one; leave out name=x",
            ),
            (
                "http://a name=x, http://b name=x",
                "18: the name x is taken, at --url; each server has a name of its own",
            ),
        ],
    )
    def test_a_mistake_is_told_at_its_column(self, text: str, message: str) -> None:
        with pytest.raises(ConfigError) as caught:
            parse_addresses(text)
        assert str(caught.value) == f"--url:{message}"
        assert caught.value.column == int(message.partition(":")[0])

    @pytest.mark.parametrize(
        ("tcp", "text", "message"),
        [
            (
                False,
                "tcp://db1:5432",
                "tcp://db1:5432 is for plain TCP; balance that with --tcp, or write http://",
            ),
            (
                True,
                "http://a",
                "http://a is an HTTP server; write tcp:// for plain TCP, or leave out --tcp",
            ),
            (
                True,
                "a[1-2]",
                "a[1-2] is an HTTP server; write tcp:// for plain TCP, or leave out --tcp",
            ),
        ],
    )
    def test_tcp_and_http_do_not_mix(self, tcp: bool, text: str, message: str) -> None:
        with pytest.raises(ConfigError) as caught:
            ServerList(tcp=tcp).add_text(text, Place("s.txt", 4, 1))
        assert str(caught.value) == f"s.txt:4:1: {message}"

    def test_either_alone_is_fine(self) -> None:
        servers = ServerList(tcp=True)
        servers.add_text("tcp://db1:5432", Place("--url"))
        assert urls(servers.parsed()) == ["tcp://db1:5432"]


class TestDoubles:
    def test_a_double_is_left_out_with_both_places_named(self) -> None:
        parsed = parse_text_file("http://a:80\nhttp://b\n\nhttp://A/ weight=2\n", "s.txt")
        assert parsed.addresses == (Address("http", "a", 80), Address("http", "b", 80))
        assert warnings(parsed) == ["s.txt:4:1: http://a:80 is named before, at s.txt:1; left out here"]

    def test_doubles_of_one_line_make_one_warning_for_each_line_they_double(self) -> None:
        parsed = parse_text_file("http://a[1-5]\nhttp://a[6-9]\nhttp://a[2-8]\n", "s.txt")
        assert len(parsed.addresses) == 9
        assert warnings(parsed) == [
            "s.txt:3:1: http://a2:80 and 3 more are named before, at s.txt:1; left out here",
            "s.txt:3:1: http://a6:80 and 2 more are named before, at s.txt:2; left out here",
        ]

    def test_doubles_are_found_across_sources(self) -> None:
        servers = ServerList()
        servers.add_text("http://a, http://b", Place("--url", column=1))
        servers.add_json_file('[\n"http://c",\n"http://b"]', "s.json")
        assert urls(servers.parsed()) == ["http://a:80", "http://b:80", "http://c:80"]
        assert warnings(servers.parsed()) == [
            "s.json:3:2: http://b:80 is named before, at --url; left out here"
        ]

    def test_another_scheme_or_port_is_another_server(self) -> None:
        assert len(parse_addresses("http://a, https://a, http://a:81")) == 3


class TestLimit:
    def test_a_mistyped_range_costs_nothing(self) -> None:
        started = time.process_time()
        with pytest.raises(ConfigError) as caught:
            parse_addresses("http://a[1-99999999999]:8188")
        assert time.process_time() - started < 1
        assert str(caught.value) == (
            "--url:1: http://a[1-99999999999]:8188 makes 99,999,999,999 servers in all, more than the 100,000"
            " allowed; shorten the range or raise --max-servers"
        )

    def test_it_counts_all_lines_together(self) -> None:
        with pytest.raises(ConfigError) as caught:
            parse_text_file("http://a[1-3]\nhttp://b\nhttp://c\n", "s.txt", limit=4)
        assert str(caught.value).startswith(
            "s.txt:3:1: http://c makes 5 servers in all, more than the 4 allowed"
        )

    def test_as_many_as_it_says_are_allowed(self) -> None:
        assert len(parse_text_file("http://a[1-3]\nhttp://b\n", "s.txt", limit=4).addresses) == 4
        assert len(parse_json_file('["http://a[1-3]"]', "s.json", limit=3).addresses) == 3
        assert len(parse_addresses("http://a[1-3]", limit=3)) == 3


class TestTextFiles:
    @pytest.mark.parametrize(
        "text",
        [
            "http://a\nhttp://b\n",
            "http://a\r\nhttp://b\r\n",
            "\ufeffhttp://a\n\n\nhttp://b",
            "# servers\nhttp://a # first\n   # indented\nhttp://b\t#second",
            "  http://a  \n\thttp://b\t\n",
            "#http://c\nhttp://a, http://b",
            "http://a;http://b # http://c",
        ],
    )
    def test_lines_comments_and_blanks_are_read(self, text: str) -> None:
        assert urls(parse_text_file(text, "s.txt")) == ["http://a:80", "http://b:80"]

    def test_servers_remember_their_lines(self) -> None:
        parsed = parse_text_file("# ours\nhttp://a\n\nhttp://b, http://c", "s.txt")
        assert [address.origin for address in parsed.addresses] == ["s.txt:2", "s.txt:4", "s.txt:4"]

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("# x\nhttp://a[9-1]", "s.txt:2:9: the range [9-1] runs backwards; put the smaller number first"),
            ("http://a, http://b?x", "s.txt:1:19: a server URL ends after the port; remove ?x"),
            ("http://a#b", "s.txt:1:9: a server URL ends after the port; remove #b"),
            ("\ufeff  http://a:x", "s.txt:1:12: the port x is not a number from 1 to 65535"),
            ("http://a\r\n \r\nhttp://b  wight=2 \r\n", "s.txt:3:11: wight is not an attribute of a server;"),
        ],
    )
    def test_a_mistake_is_told_at_its_line_and_column(self, text: str, message: str) -> None:
        with pytest.raises(ConfigError) as caught:
            parse_text_file(text, "s.txt")
        assert str(caught.value).startswith(message)

    def test_a_line_break_of_another_kind_does_not_shift_the_lines(self) -> None:
        parsed = parse_text_file("# a\u2028b\x0bc\nhttp://a", "s.txt")
        assert parsed.addresses[0].origin == "s.txt:2"


class TestJsonFiles:
    def test_strings_and_objects_mix(self) -> None:
        text = """\ufeff[
            "http://a, http://b weight=3",
            {"url": "http://c[1-2]", "weight": 2, "max_conns": 8},
            {"name": "gpu-d", "url": "d:81", "backup": true}
        ]"""
        parsed = parse_json_file(text, "s.json")
        assert parsed.addresses == (
            Address("http", "a", 80),
            Address("http", "b", 80, weight=3),
            Address("http", "c1", 80, weight=2, max_conns=8),
            Address("http", "c2", 80, weight=2, max_conns=8),
            Address("http", "d", 81, name="gpu-d", backup=True),
        )
        assert [address.origin for address in parsed.addresses] == [
            "s.json:2",
            "s.json:2",
            "s.json:3",
            "s.json:3",
            "s.json:4",
        ]

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ('[\n "http://a[9-1]"]', "2:11: the range [9-1] runs backwards; put the smaller number first"),
            (r'["http:\/\/a[9-1]"]', "1:3: the range [9-1] runs backwards; put the smaller number first"),
            ('[{}]', '1:2: this object has no "url" that is a string'),
            ('["a", {"url": 5}]', '1:7: this object has no "url" that is a string'),
            ('[{"url": "http://a:0"}]', "1:2: the port 0 is not a number from 1 to 65535"),
            (
                '[{"url": "http://a, http://b"}]',
                "1:2: \"url\" is one URL, not 'http://a, http://b'; write several as strings",
            ),
            (
                '[{"url": "a", "weight": true}]',
                "1:2: weight=true does not work: this takes a whole number of up to 9 digits",
            ),
            (
                '[{"url": "a", "weight": 1.5}]',
                "1:2: weight=1.5 does not work: this takes a whole number of up to 9 digits",
            ),
            (
                '[{"url": "a", "wait": 1}]',
                "1:2: wait is not an attribute of a server; did you mean weight?",
            ),
            ('[{"url": "a[1-2]", "name": "x"}]', "1:2: a[1-2] stands for 2 servers, and a name is for one"),
        ],
    )  # fmt: skip
    def test_a_mistake_is_told_at_its_line_and_column(self, text: str, message: str) -> None:
        with pytest.raises(ConfigError) as caught:
            parse_json_file(text, "s.json")
        assert str(caught.value).startswith(f"s.json:{message}")


label = st.from_regex(r"[a-z_][a-z0-9_]{0,8}(-[a-z0-9]{1,3})?", fullmatch=True)
hosts = st.one_of(
    st.lists(label, min_size=1, max_size=4).map(".".join),
    st.ip_addresses(v=4).map(str),
    st.ip_addresses(v=6).map(lambda address: IPv6Address(address).compressed),
)
addresses = st.builds(
    Address,
    st.sampled_from(["http", "https", "tcp"]),
    hosts,
    st.integers(1, 65_535),
    weight=st.integers(1, 65_535),
    max_conns=st.integers(0, 999_999_999),
    name=st.from_regex(r"[A-Za-z0-9._-]{0,12}", fullmatch=True),
    backup=st.booleans(),
)


def read_or_refuse(text: str) -> tuple[Address, ...] | ConfigError:
    try:
        return parse_text_file(text, "s.txt", limit=1000).addresses
    except ConfigError as error:
        return error


class TestProperties:
    @given(addresses)
    def test_an_address_reads_as_what_it_writes(self, address: Address) -> None:
        assert parse_addresses(str(address)) == (address,)

    @given(st.lists(addresses, unique_by=(lambda one: one.key, lambda one: one.name or one.key), max_size=5))
    def test_lists_and_files_of_all_kinds_agree(self, wanted: list[Address]) -> None:
        lines = [str(address) for address in wanted]
        assert parse_addresses(", ".join(lines)) == tuple(wanted)
        assert parse_text_file("\n".join(lines), "s.txt").addresses == tuple(wanted)
        assert parse_json_file(json.dumps(lines), "s.json").addresses == tuple(wanted)

    @given(st.integers(0, 300), st.integers(0, 60), st.integers(0, 5))
    def test_a_range_is_its_numbers(self, first: int, more: int, padding: int) -> None:
        start = f"{first:0{padding}d}"
        width = len(start) if start.startswith("0") else 0
        assert [address.host for address in parse_addresses(f"http://a[{start}-{first + more}]")] == [
            f"a{number:0{width}d}" for number in range(first, first + more + 1)
        ]

    @given(st.text(alphabet="htps:/[]-.,;=#@%019ab \t", max_size=40))
    def test_any_text_is_read_or_refused_at_a_place_in_it(self, text: str) -> None:
        outcome = read_or_refuse(text)
        if isinstance(outcome, ConfigError):
            assert (outcome.source, outcome.line) == ("s.txt", 1)
            assert outcome.column in range(1, len(text) + 2)
        else:
            assert parse_addresses(",".join(map(str, outcome))) == outcome
