"""tap.conf: options, pools and routes, and where a mistake in it stands."""

import pytest

from comfyproxy.core.configuration.settings import Layer
from comfyproxy.core.configuration.tapconf import TapConf, parse_tap_conf
from comfyproxy.errors import ConfigError


def parse(text: str) -> TapConf:
    return parse_tap_conf(text, "tap.conf", "/etc/comfyproxy")


def texts(layer: Layer) -> dict[str, tuple[str, ...]]:
    return {key: given.texts for key, given in layer.items()}


def test_an_empty_file_says_nothing() -> None:
    assert parse("") == parse("# nothing\n") == TapConf("tap.conf")


def test_options_are_keys() -> None:
    conf = parse(
        "\ufeffurl = ['http://a', 'http://b; http://c']\nfile='servers.txt'\ndebug = true\ntcp = false\n"
        "connect_timeout = 1.5\nmax_head = 32768\nhead_timeout = '10s'\n"
    )
    assert texts(conf.options) == {
        "url": ("http://a", "http://b; http://c"),
        "file": ("servers.txt",),
        "debug": ("true",),
        "tcp": ("false",),
        "connect_timeout": ("1.5",),
        "max_head": ("32768",),
        "head_timeout": ("10s",),
    }
    assert str(conf.options["debug"].place) == "tap.conf:3"


def test_paths_start_at_its_directory() -> None:
    assert parse('file = "servers.txt"').options["file"].paths() == ("/etc/comfyproxy/servers.txt",)


def test_an_empty_array_sets_nothing() -> None:
    assert texts(parse("trusted_proxy = []").options) == {}


@pytest.mark.parametrize("before", ["", "[[routes]]\nprefix = '/'\npool = 'default'\n"])
def test_rules_for_fields_are_tables(before: str) -> None:
    conf = parse(
        before
        + "[[routes]]\nprefix = '/x'\npool = 'default'\n" * bool(before)
        + "request_headers = { set = { X-A = '{client}: x', X-B = 5 }, add = { X-C = ['1', '2'] } }\n"
        + "response_headers = { remove = ['Server', 'X-D'], add = {} }\n"
    )
    layer = conf.routes[1].options if before else conf.options
    assert texts(layer) == {
        "request_header": ("set X-A: {client}: x", "set X-B: 5", "add X-C: 1", "add X-C: 2"),
        "response_header": ("remove Server", "remove X-D"),
    }
    assert [str(rule) for rule in layer["request_header"].values()] == list(layer["request_header"].texts)


def test_a_route_may_have_no_rules_where_all_others_have_some() -> None:
    conf = parse(
        "request_header = ['remove X-A']\n[[routes]]\nprefix='/'\npool='default'\nrequest_headers={}"
    )
    assert texts(conf.options) == {"request_header": ("remove X-A",)}
    assert texts(conf.routes[0].options) == {"request_header": ()}


def test_pools_and_routes_are_tables() -> None:
    conf = parse(
        'placement = "request"\n'
        '[pools.gpu]\nfile = "gpu.txt"\n[pools.llm]\nurl = "http://llm:8000"\napp = "http"\n'
        '[[routes]]\nprefix = "/v1/"\npool = "llm"\ntimeouts = { response = "2h", idle = 0 }\n'
        'retries = 1\nretry_on = [503, "timeout"]\n'
        '[[routes]]\nprefix = "/"\npool = "gpu"\n'
        '[[routes]]\nprefix = "/ui"\nstatic = "dist"\n'
        '[[routes]]\nprefix = "/dev"\nfrontend = "http://localhost:5173"\n[routes.timeouts]\nhead = 5\n'
    )
    assert {name: texts(table.options) for name, table in conf.pools.items()} == {
        "gpu": {"file": ("gpu.txt",)},
        "llm": {"url": ("http://llm:8000",), "app": ("http",)},
    }
    assert [(route.prefix, route.pool, texts(route.options)) for route in conf.routes] == [
        (
            "/v1",
            "llm",
            {
                "response_timeout": ("2h",),
                "idle_timeout": ("0",),
                "retries": ("1",),
                "retry_on": ("503", "timeout"),
            },
        ),
        ("/", "gpu", {}),
        ("/ui", None, {"static": ("dist",)}),
        ("/dev", None, {"frontend": ("http://localhost:5173",), "head_timeout": ("5",)}),
    ]
    assert [str(table.place) for table in conf.pools.values()] == ["tap.conf:2", "tap.conf:4"]
    assert [str(route.place) for route in conf.routes] == [f"tap.conf:{line}" for line in (7, 13, 16, 19)]


def test_routes_without_pools_may_lead_to_the_default_one() -> None:
    conf = parse('url = "http://a"\n[[routes]]\nprefix = "/"\npool = "default"')
    assert conf.routes[0].pool == "default"


ONE_POOL = '[pools.gpu]\nurl = "http://a"\n'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a = ", "tap.conf:1: this is not TOML: invalid value"),
        ('debug = true\nurl = "x\n', "tap.conf:2:9: this is not TOML: illegal character '\\n'"),
        ("a = 1\na = 2\n\n", "tap.conf:2:6: this is not TOML: cannot overwrite a value"),
        ("max_head = " + "9" * 5000, "tap.conf:1: this is not TOML: exceeds the limit"),
        ("debug = true\n\nlisen = 'tcp:80'", "tap.conf:3: lisen is not known here; did you mean listen?"),
        ("access-log = 'json'", "tap.conf:1: access-log is not known here; did you mean access_log?"),
        ("config = 'x'", "tap.conf:1: config is not known here; "),
        ("route = []", "tap.conf:1: route is not known here; did you mean routes?"),
        (
            "debug = []\nzzz = 1",
            "tap.conf:2: zzz is not known here; known are accept_proxy_protocol, access_log, access_log_file",
        ),
        ("app = ['http']", "tap.conf:1: app takes no array"),
        ("url = true", "tap.conf:1: url takes no boolean"),
        ("listen = ['tcp:80', 1979-05-27]", "tap.conf:1: listen takes no date or time"),
        ("listen = [['tcp:80']]", "tap.conf:1: listen takes no array"),
        ("[debug]\nx = 1", "tap.conf:1: debug takes no table"),
        ("pools = 5", "tap.conf:1: pools takes tables, not single values"),
        ("[pools]\ngpu = 'http://a'", "tap.conf:2: pools takes tables, not single values"),
        ("[pools.gpu]\napp = 'http'", "tap.conf:1: the pool gpu has no servers; give it url or file"),
        (
            "\n[pools.'a b']\nurl = 'http://a'",
            "tap.conf:2: 'a b' cannot name a pool; use up to 64 letters, digits, dots, - and _",
        ),
        (ONE_POOL + "listen = 'tcp:80'", "tap.conf:3: listen is not known here; known are app, "),
        (
            "url = 'http://b'\n" + ONE_POOL,
            "tap.conf:1: url stands beside [pools]; put it into one of them",
        ),
        (
            ONE_POOL + "[pools.llm]\nurl = 'http://b'",
            "tap.conf:3: several pools need [[routes]] that say what goes to which",
        ),
        ("[routes]\nprefix = '/'", "tap.conf:1: routes is an array of tables; begin each with [[routes]]"),
        ("routes = [1]", "tap.conf:1: routes takes tables, not single values"),
        (
            ONE_POOL + "[[routes]]\npool = 'gpu'",
            'tap.conf:3: a route needs a prefix that begins with /, such as "/api"',
        ),
        (
            ONE_POOL + "[[routes]]\npool = 'gpu'\nprefix = 'api'",
            'tap.conf:5: a route needs a prefix that begins with /, such as "/api"',
        ),
        (
            "[[routes]]\nprefix = '/a?b'",
            'tap.conf:2: a route needs a prefix that begins with /, such as "/api"',
        ),
        ("[[routes]]\nprefix = 5", 'tap.conf:2: a route needs a prefix that begins with /, such as "/api"'),
        (
            "[[routes]]\nprefix = '/'",
            "tap.conf:1: the route / leads to exactly one of pool, static and frontend",
        ),
        (
            ONE_POOL + "[[routes]]\nprefix = '/'\npool = 'gpu'\nstatic = 'dist'",
            "tap.conf:3: the route / leads to exactly one of pool, static and frontend",
        ),
        (
            "[[routes]]\nprefix = '/'\nstatic = 'dist'\nfrontend = 'http://a'",
            "tap.conf:1: the route / leads to exactly one of pool, static and frontend",
        ),
        ("[[routes]]\nprefix = '/'\npool = 5", "tap.conf:3: pool takes the name of one of [pools]"),
        (
            ONE_POOL + "[[routes]]\nprefix = '/'\npool = 'gpus'",
            "tap.conf:5: there is no pool gpus; did you mean gpu?",
        ),
        (
            "[[routes]]\nprefix = '/'\npool = 'gpu'",
            "tap.conf:3: there is no pool gpu; known are default",
        ),
        (
            "[[routes]]\nprefix = '/a'\nstatic = 'x'\n[[routes]]\nprefix = '/a/'\nstatic = 'y'",
            "tap.conf:4: /a has a route before, at tap.conf:1",
        ),
        (
            "[[routes]]\nprefix = '/'\nstatik = 'x'",
            "tap.conf:3: statik is not known here; did you mean static?",
        ),
        (
            "[[routes]]\nprefix = '/'\nstatic = 'x'\ntimeouts = { responce = 5 }",
            "tap.conf:4: responce is not known here; did you mean response?",
        ),
        (
            "debug = true\nrequest_headers = ['remove X-A']",
            "tap.conf:2: request_headers takes tables, not single values",
        ),
        (
            "request_header = ['remove X-A']\nrequest_headers = { remove = ['X-B'] }",
            "tap.conf:2: request_headers and request_header exclude each other: they say the same",
        ),
        ("request_headers = { put = { X-A = '1' } }", "tap.conf:1: put is not known here; known are add"),
        (
            "\nresponse_headers = { remove = { X-A = '1' } }",
            'tap.conf:2: remove is written as remove = ["NAME"]',
        ),
        (
            "response_headers = { set = ['X-A'] }",
            'tap.conf:1: set is written as set = { NAME = "VALUE" }',
        ),
        ("response_headers = { remove = ['X:A'] }", "tap.conf:1: 'X:A' cannot name a header field"),
        (
            "response_headers = { set = { X-A = true } }",
            "tap.conf:1: response_header takes no boolean",
        ),
        (
            "response_headers = { set = { 'X:A' = '1' } }",
            "tap.conf:1: 'X:A' cannot name a header field",
        ),
        (
            "[pools.gpu]\nurl = 'http://a'\nrequest_headers = {}",
            "tap.conf:3: request_headers is not known here",
        ),
        (
            "[[routes]]\nprefix = '/'\nstatic = 'x'\n[routes.timeouts]\nhead = 1\nwait = 5",
            "tap.conf:6: wait is not known here; ",
        ),
        (
            "[[routes]]\nprefix = '/'\nstatic = 'x'\ntimeouts = 5",
            "tap.conf:4: routes takes tables, not single values",
        ),
    ],
)
def test_a_mistake_is_told_with_its_line(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(text)
    assert str(caught.value).startswith(message)
    assert caught.value.line == int(message.split(":")[1])
