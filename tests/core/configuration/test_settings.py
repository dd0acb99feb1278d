"""Which source decides, and what each of them gives."""

import pytest

from comfyproxy.core.configuration.diagnostics import Place
from comfyproxy.core.configuration.dotenv import Variable
from comfyproxy.core.configuration.options import OPTION
from comfyproxy.core.configuration.settings import (
    CommandLine,
    Given,
    Layer,
    Settings,
    command_line_layer,
    give,
    misspelt_variables,
    variables_layer,
)
from comfyproxy.errors import ConfigError


def one(key: str, *texts: str, source: str = "--x", directory: str = "/site") -> Given:
    return give(OPTION[key], texts, Place(source), directory)


def layer(source: str, **texts: str) -> Layer:
    return {key: one(key, text, source=source) for key, text in texts.items()}


def variables(**texts: str) -> dict[str, Variable]:
    return {name: Variable(text, Place(name)) for name, text in texts.items()}


class TestPrecedence:
    LAYERS = ("command line", "environment", ".env", "tap.conf")

    @pytest.mark.parametrize("strongest", range(4))
    def test_the_first_layer_that_says_something_decides(self, strongest: int) -> None:
        layers = [
            layer(source, access_log="json", max_body=f"{index}") if index >= strongest else {}
            for index, source in enumerate(self.LAYERS)
        ]
        given = Settings(layers).given("max_body")
        assert given is not None
        assert given.place.source == self.LAYERS[strongest]
        assert Settings(layers).value("max_body") == strongest

    def test_the_default_holds_where_no_layer_says_anything(self) -> None:
        settings = Settings([{}, layer("tap.conf", debug="true")])
        assert settings.given("websocket") is None
        assert settings.value("websocket") == "auto"
        assert settings.value("listen") == ("tcp:8080:interface=127.0.0.1",)

    @pytest.mark.parametrize(
        ("strong", "weak", "effective"),
        [
            ({"url": "a"}, {"file": "b"}, {"url": "a", "file": None}),
            ({"file": "a"}, {"url": "b"}, {"url": None, "file": "a"}),
            ({}, {"url": "b", "file": "c"}, {"url": "b", "file": "c"}),
            ({"url": "a"}, {"url": "b", "file": "c"}, {"url": "a", "file": None}),
            ({"static": "a"}, {"frontend": "b"}, {"static": "a", "frontend": None}),
            ({"url": "a"}, {"frontend": "b"}, {"url": "a", "frontend": "b"}),
        ],
    )
    def test_options_of_a_group_come_from_one_layer(
        self, strong: dict[str, str], weak: dict[str, str], effective: dict[str, str | None]
    ) -> None:
        settings = Settings([layer("strong", **strong), layer("weak", **weak)])
        assert {
            key: given.texts[0] if (given := settings.given(key)) else None for key in effective
        } == effective

    def test_what_stands_above_all_layers_goes_first(self) -> None:
        settings = Settings([layer("command line", placement="client", app="http")])
        below = settings.below(layer("pool", placement="request"))
        assert (below.value("placement"), below.value("app")) == ("request", "http")
        assert settings.value("placement") == "client"


class TestValues:
    def test_a_value_is_read_by_its_kind(self) -> None:
        settings = Settings([layer("x", connect_timeout=" 5m ", max_body="1K", tcp="true")])
        assert [settings.value(key) for key in ("connect_timeout", "max_body", "tcp")] == [300, 1024, True]

    def test_a_repeatable_option_is_a_tuple(self) -> None:
        settings = Settings([{"trusted_proxy": one("trusted_proxy", "10.0.0.0/8, ::1", "127.0.0.1")}])
        assert settings.value("trusted_proxy") == ("10.0.0.0/8", "::1/128", "127.0.0.1/32")

    @pytest.mark.parametrize(
        ("key", "texts", "divided"),
        [
            ("listen", ["tcp:80; tcp:81"], ("tcp:80", "tcp:81")),
            ("listen", ["tcp:80", "tcp:81;"], ("tcp:80", "tcp:81")),
            ("file", ["a, b.txt; c.txt"], ("a, b.txt", "c.txt")),
            ("url", ["http://a; http://b"], ("http://a; http://b",)),
            ("static", ["a;b"], ("a;b",)),
            ("listen", [" ; "], ("",)),
        ],
    )
    def test_a_text_with_several_values_is_divided(
        self, key: str, texts: list[str], divided: tuple[str, ...]
    ) -> None:
        assert one(key, *texts).texts == divided

    @pytest.mark.parametrize(
        ("key", "text", "message"),
        [
            ("connect_timeout", "5x", "'5x' is not a duration; write for example 30, 500ms, 30s, 5m or 1h"),
            ("app", "flask", "'flask' is not one of comfyui, http"),
            ("listen", "8080", "'8080' is not a Twisted endpoint; write tcp:8080"),
            ("file", ";", "the value is empty"),
        ],
    )
    def test_a_wrong_value_is_told_where_it_was_given(self, key: str, text: str, message: str) -> None:
        settings = Settings([{key: give(OPTION[key], [text], Place("tap.conf", 7), "/")}])
        with pytest.raises(ConfigError) as caught:
            settings.value(key)
        assert str(caught.value) == f"tap.conf:7: {message}"


class TestPaths:
    @pytest.mark.parametrize(
        ("text", "path"),
        [
            ("servers.txt", "/site/servers.txt"),
            ("./a/../servers.txt", "/site/servers.txt"),
            ("/etc/servers.txt", "/etc/servers.txt"),
            ("file:///etc/comfyui/servers.json", "/etc/comfyui/servers.json"),
            ("FILE:///etc/servers.txt", "/etc/servers.txt"),
            ("file://localhost/etc/servers.txt", "/etc/servers.txt"),
            ("file:/etc/servers.txt", "/etc/servers.txt"),
            ("file:///with%20blank/100%25.txt", "/with blank/100%.txt"),
            ("with%20percent.txt", "/site/with%20percent.txt"),
            ("files:x", "/site/files:x"),
        ],
    )
    def test_a_path_becomes_absolute(self, text: str, path: str) -> None:
        assert one("file", text).paths() == (path,)

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            (
                "file://server/etc/x.txt",
                "file://server/etc/x.txt names a file of another machine, server;"
                " write file:/// for one of this",
            ),
            (
                "file://servers.txt",
                "file://servers.txt is not a file:// URL with a whole path, such as file:///etc/servers.txt",
            ),
            ("file:", "file: is not a file:// URL with a whole path, such as file:///etc/servers.txt"),
        ],
    )
    def test_a_file_url_that_leads_nowhere_is_refused(self, text: str, message: str) -> None:
        with pytest.raises(ConfigError) as caught:
            one("file", text, source="--file").paths()
        assert str(caught.value) == f"--file: {message}"


class TestCommandLine:
    def test_what_is_given_is_taken(self) -> None:
        options: CommandLine = {"url": ["a", "b"], "static": "dist", "tcp": True}
        layer = command_line_layer(options, "/site")
        assert {key: given.texts for key, given in layer.items()} == {
            "url": ("a", "b"),
            "static": ("dist",),
            "tcp": ("true",),
        }
        assert {str(given.place) for given in layer.values()} == {"--url", "--static", "--tcp"}
        assert layer["static"].paths() == ("/site/dist",)

    def test_what_is_not_given_is_not_there(self) -> None:
        assert command_line_layer({"url": None, "file": [], "tcp": False}, "/") == {}

    def test_an_empty_value_is_given(self) -> None:
        assert command_line_layer({"file": [""]}, "/")["file"].texts == ("",)


class TestVariables:
    def test_each_sets_its_option(self) -> None:
        layer = variables_layer(
            variables(DEV_SERVER_COMFYUI_URL="http://a; http://b", COMFYPROXY_DEBUG="1", HOME="/root"),
            "/site",
        )
        assert {key: given.texts for key, given in layer.items()} == {
            "url": ("http://a; http://b",),
            "debug": ("1",),
        }
        assert str(layer["debug"].place) == "COMFYPROXY_DEBUG"

    @pytest.mark.parametrize("text", ["", "  "])
    def test_an_empty_one_sets_nothing(self, text: str) -> None:
        assert variables_layer(variables(DEV_SERVER_COMFYUI_URL=text), "/") == {}

    def test_one_with_a_slip_in_its_name_is_told(self) -> None:
        warnings = misspelt_variables(variables(COMFYPROXY_LISEN="tcp:80", COMFYPROXY_ACCESLOG="json"))
        assert [str(warning) for warning in warnings] == [
            "COMFYPROXY_LISEN: COMFYPROXY_LISEN sets nothing; did you mean COMFYPROXY_LISTEN?",
            "COMFYPROXY_ACCESLOG: COMFYPROXY_ACCESLOG sets nothing; did you mean COMFYPROXY_ACCESS_LOG?",
        ]

    @pytest.mark.parametrize(
        "name",
        [
            "COMFYPROXY_LISTEN",
            "COMFYPROXY_PORT",
            "COMFYPROXY_SERVICE_HOST",
            "COMFYPROXY_PORT_8080_TCP_PROTO",
            "LISTEN",
            "DEV_SERVER_COMFYUI_URL",
        ],
    )
    def test_others_are_left_alone(self, name: str) -> None:
        assert misspelt_variables(variables(**{name: "x"})) == []

    def test_the_servers_of_the_dev_server_by_our_prefix_are_told(self) -> None:
        (warning,) = misspelt_variables(variables(COMFYPROXY_URL="http://a"))
        assert "did you mean DEV_SERVER_COMFYUI_URL?" in str(warning)
