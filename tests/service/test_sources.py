"""Sources on a real disk: what is read, from where, and again after it has changed."""

import os
from pathlib import Path

import pytest

from comfyproxy.core.configuration.settings import CommandLine
from comfyproxy.errors import ConfigError
from comfyproxy.service.sources import Loaded, Sources


def load(cwd: Path, options: CommandLine | None = None, **environ: str) -> Loaded:
    return Sources(options or {}, environ, str(cwd)).load()


def urls(loaded: Loaded) -> list[str]:
    return [address.url for address in loaded.config.pools["default"].addresses]


def origins(loaded: Loaded) -> list[str]:
    return [address.origin for address in loaded.config.pools["default"].addresses]


def failure(cwd: Path, options: CommandLine | None = None, **environ: str) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        load(cwd, options, **environ)
    return caught.value


def test_without_any_source_it_is_comfyui_on_this_machine(tmp_path: Path) -> None:
    assert urls(load(tmp_path)) == ["http://127.0.0.1:8188"]


class TestPrecedence:
    """Command line > environment > .env > tap.conf > default, for one option given in each."""

    GIVEN = ("command line", "environment", ".env", "tap.conf", "default")

    @pytest.mark.parametrize("strongest", range(5))
    def test_of_servers(self, tmp_path: Path, strongest: int) -> None:
        (tmp_path / ".env").write_text("DEV_SERVER_COMFYUI_URL=http://dotenv\n" if strongest <= 2 else "")
        (tmp_path / "tap.conf").write_text('url = "http://tapconf"\n' if strongest <= 3 else "")
        environ = {"DEV_SERVER_COMFYUI_URL": "http://environment"} if strongest <= 1 else {}
        options: CommandLine = {"url": ["http://option"]} if strongest == 0 else {}
        loaded = load(tmp_path, options, **environ)
        assert (urls(loaded), origins(loaded)) == [
            (["http://option:80"], ["--url"]),
            (["http://environment:80"], ["DEV_SERVER_COMFYUI_URL"]),
            (["http://dotenv:80"], [".env:1"]),
            (["http://tapconf:80"], ["tap.conf:1"]),
            (["http://127.0.0.1:8188"], ["default"]),
        ][strongest]

    @pytest.mark.parametrize("strongest", range(5))
    def test_of_any_other_option(self, tmp_path: Path, strongest: int) -> None:
        (tmp_path / ".env").write_text("COMFYPROXY_MAX_FIELDS=3\n" if strongest <= 2 else "")
        (tmp_path / "tap.conf").write_text("max_fields = 4\n" if strongest <= 3 else "")
        environ = {"COMFYPROXY_MAX_FIELDS": "2"} if strongest <= 1 else {}
        options: CommandLine = {"max_fields": "1"} if strongest == 0 else {}
        assert load(tmp_path, options, **environ).config.limits.fields == [1, 2, 3, 4, 200][strongest]

    def test_a_file_on_the_command_line_goes_before_urls_elsewhere(self, tmp_path: Path) -> None:
        (tmp_path / "servers.txt").write_text("http://file\n")
        (tmp_path / ".env").write_text("DEV_SERVER_COMFYUI_URL=http://dotenv\n")
        assert urls(load(tmp_path, {"file": ["servers.txt"]})) == ["http://file:80"]

    def test_url_and_file_of_one_source_are_joined(self, tmp_path: Path) -> None:
        (tmp_path / "servers.txt").write_text("http://file\n")
        (tmp_path / ".env").write_text(
            "DEV_SERVER_COMFYUI_FILE=servers.txt\nDEV_SERVER_COMFYUI_URL=http://url\n"
        )
        assert urls(load(tmp_path)) == ["http://url:80", "http://file:80"]


class TestServerFiles:
    def test_the_name_says_whether_it_is_json(self, tmp_path: Path) -> None:
        (tmp_path / "servers.json").write_text('["http://a"]')
        (tmp_path / "servers.list").write_text("http://b")
        loaded = load(tmp_path, {"file": ["servers.json", "servers.list"]})
        assert urls(loaded) == ["http://a:80", "http://b:80"]

    @pytest.mark.parametrize("prefix", ["file://", "file://localhost", "file:"])
    def test_a_file_url_names_one_too(self, tmp_path: Path, prefix: str) -> None:
        path = tmp_path / "with blank.txt"
        path.write_text("http://a")
        url = prefix + str(path).replace(" ", "%20")
        assert urls(load(Path("/"), DEV_SERVER_COMFYUI_FILE=url)) == ["http://a:80"]

    def test_byte_order_mark_and_crlf_do_no_harm(self, tmp_path: Path) -> None:
        (tmp_path / "servers.txt").write_bytes(b"\xef\xbb\xbfhttp://a\r\nhttp://b\r\n")
        assert urls(load(tmp_path, {"file": ["servers.txt"]})) == ["http://a:80", "http://b:80"]

    def test_places_are_named_as_seen_from_the_working_directory(self, tmp_path: Path) -> None:
        (tmp_path / "here").mkdir()
        for name in ("here/in.txt", "out.txt"):
            (tmp_path / name).write_text(f"http://{name[-6:-4].strip('/')}")
        loaded = load(tmp_path / "here", {"file": ["in.txt", "../out.txt"]})
        assert origins(loaded) == ["in.txt:1", f"{tmp_path}/out.txt:1"]

    def test_one_that_is_missing_is_told_with_what_named_it(self, tmp_path: Path) -> None:
        assert str(failure(tmp_path, {"file": ["gone.txt"]})) == (
            "gone.txt: the file cannot be read: No such file or directory; --file names it"
        )

    def test_a_directory_is_none(self, tmp_path: Path) -> None:
        (tmp_path / "servers").mkdir()
        error = failure(tmp_path, DEV_SERVER_COMFYUI_FILE="servers")
        assert str(error) == (
            "servers: the file cannot be read: Is a directory; DEV_SERVER_COMFYUI_FILE names it"
        )

    def test_a_name_that_no_file_can_have_is_told(self, tmp_path: Path) -> None:
        error = failure(tmp_path, {"file": ["file:///a%00b"]})
        assert str(error) == r"/a\x00b: the file cannot be read: embedded null byte; --file names it"

    def test_one_that_is_not_utf_8_is_told_with_the_line(self, tmp_path: Path) -> None:
        (tmp_path / "servers.txt").write_bytes(b"http://a\nhttp://b\xff\n")
        error = failure(tmp_path, {"file": ["servers.txt"]})
        assert str(error) == "servers.txt:2: the file is not UTF-8 from here on"
        assert (error.source, error.line) == ("servers.txt", 2)

    def test_a_mistake_in_it_has_line_and_column(self, tmp_path: Path) -> None:
        (tmp_path / "servers.txt").write_text("# gpus\n\nhttp://a:8188, http://b:818[8-0]\n")
        error = failure(tmp_path, {"file": ["servers.txt"]})
        assert (error.source, error.line, error.column) == ("servers.txt", 3, 28)


class TestDotenv:
    def test_the_example_of_the_guide(self, tmp_path: Path) -> None:
        (tmp_path / "servers.txt").write_text("http://c\n")
        (tmp_path / ".env").write_text(
            "# Servers\nVITE_OTHER=1\nexport DEV_SERVER_COMFYUI_URL=http://a,http://b; http://c  # three\n"
            f'DEV_SERVER_COMFYUI_FILE="file://{tmp_path}/servers.txt"\n'
        )
        loaded = load(tmp_path)
        assert urls(loaded) == ["http://a:80", "http://b:80", "http://c:80"]
        assert [str(warning) for warning in loaded.warnings] == [
            "servers.txt:1:1: http://c:80 is named before, at .env:3; left out here"
        ]

    def test_a_mistake_in_it_has_line_and_column(self, tmp_path: Path) -> None:
        (tmp_path / ".env").write_text(
            "\nDEV_SERVER_COMFYUI_URL=http://localhost:818[8-0]  # Won't work - just use direct\n"
        )
        assert str(failure(tmp_path)) == (
            ".env:2:44: the range [8-0] runs backwards; put the smaller number first"
        )

    def test_its_paths_start_at_its_directory(self, tmp_path: Path) -> None:
        (tmp_path / "vite").mkdir()
        (tmp_path / "vite" / "dev.env").write_text("DEV_SERVER_COMFYUI_FILE=servers.txt")
        (tmp_path / "vite" / "servers.txt").write_text("http://a")
        assert urls(load(tmp_path, {"env_file": "vite/dev.env"})) == ["http://a:80"]
        assert urls(load(tmp_path, COMFYPROXY_ENV_FILE="vite/dev.env")) == ["http://a:80"]

    def test_it_may_be_missing_unless_it_was_named(self, tmp_path: Path) -> None:
        assert str(failure(tmp_path, {"env_file": ".env"})) == (
            ".env: the file cannot be read: No such file or directory; --env-file names it"
        )

    def test_a_directory_of_that_name_is_something_else(self, tmp_path: Path) -> None:
        (tmp_path / ".env").mkdir()
        assert urls(load(tmp_path)) == ["http://127.0.0.1:8188"]

    def test_it_can_be_left_out(self, tmp_path: Path) -> None:
        (tmp_path / ".env").write_text("DEV_SERVER_COMFYUI_URL=http://a")
        assert urls(load(tmp_path, {"env_file": os.devnull})) == ["http://127.0.0.1:8188"]

    def test_what_is_odd_in_it_is_told(self, tmp_path: Path) -> None:
        (tmp_path / ".env").write_text("COMFYPROXY_LISEN=tcp:80\nhello\n")
        assert [str(warning) for warning in load(tmp_path, COMFYPROXY_DEBUGG="1").warnings] == [
            "COMFYPROXY_DEBUGG: COMFYPROXY_DEBUGG sets nothing; did you mean COMFYPROXY_DEBUG?",
            ".env:2:1: this is not KEY=VALUE; left out",
            ".env:1:18: COMFYPROXY_LISEN sets nothing; did you mean COMFYPROXY_LISTEN?",
        ]


class TestTapConf:
    def test_it_is_read_from_the_working_directory(self, tmp_path: Path) -> None:
        (tmp_path / "tap.conf").write_text('url = "http://a"')
        assert urls(load(tmp_path)) == ["http://a:80"]

    @pytest.mark.parametrize("by", ["option", "environment", ".env"])
    def test_it_can_be_named(self, tmp_path: Path, by: str) -> None:
        (tmp_path / "etc").mkdir()
        (tmp_path / "etc" / "proxy.toml").write_text('file = "servers.txt"')
        (tmp_path / "etc" / "servers.txt").write_text("http://a")
        (tmp_path / ".env").write_text("COMFYPROXY_CONFIG=etc/proxy.toml" if by == ".env" else "")
        environ = {"COMFYPROXY_CONFIG": "etc/proxy.toml"} if by == "environment" else {}
        options: CommandLine = {"config": "etc/proxy.toml"} if by == "option" else {}
        assert urls(load(tmp_path, options, **environ)) == ["http://a:80"]

    def test_it_may_be_missing_unless_it_was_named(self, tmp_path: Path) -> None:
        assert str(failure(tmp_path, {"config": "tap.conf"})) == (
            "tap.conf: the file cannot be read: No such file or directory; --config names it"
        )

    def test_a_mistake_in_it_has_its_line(self, tmp_path: Path) -> None:
        (tmp_path / "tap.conf").write_text("debug = true\nlisen = 'tcp:80'\n")
        assert str(failure(tmp_path)) == "tap.conf:2: lisen is not known here; did you mean listen?"

    def test_a_directory_that_it_serves_must_be_there(self, tmp_path: Path) -> None:
        (tmp_path / "tap.conf").write_text("static = 'dist'\n")
        assert str(failure(tmp_path)) == "tap.conf:1: dist is not a directory"
        (tmp_path / "dist").mkdir()
        assert load(tmp_path).config.routes[-1].static == str(tmp_path / "dist")


class TestReload:
    def test_every_source_is_read_anew(self, tmp_path: Path) -> None:
        sources = Sources({}, {}, str(tmp_path))
        assert urls(sources.load()) == ["http://127.0.0.1:8188"]
        (tmp_path / "tap.conf").write_text('file = "servers.txt"\ndebug = true')
        (tmp_path / "servers.txt").write_text("http://a")
        assert (urls(sources.load()), sources.load().config.debug) == (["http://a:80"], True)
        (tmp_path / "servers.txt").write_text("http://b")
        assert urls(sources.load()) == ["http://b:80"]
        (tmp_path / ".env").write_text("DEV_SERVER_COMFYUI_URL=http://c")
        assert urls(sources.load()) == ["http://c:80"]

    def test_a_broken_source_can_be_mended(self, tmp_path: Path) -> None:
        sources = Sources({"file": ["servers.txt"]}, {}, str(tmp_path))
        (tmp_path / "servers.txt").write_text("http://a:x")
        with pytest.raises(ConfigError):
            sources.load()
        (tmp_path / "servers.txt").write_text("http://a")
        assert urls(sources.load()) == ["http://a:80"]

    def test_a_daemon_that_changed_its_directory_finds_its_files(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "servers.txt").write_text("http://a")
        (tmp_path / "dist").mkdir()
        monkeypatch.chdir(tmp_path)
        sources = Sources({"file": ["servers.txt"], "static": "dist"}, {}, os.curdir)
        monkeypatch.chdir("/")
        loaded = sources.load()
        assert urls(loaded) == ["http://a:80"]
        assert loaded.config.routes[-1].static == str(tmp_path / "dist")

    def test_the_environment_is_that_of_the_start(self, tmp_path: Path) -> None:
        environ = {"DEV_SERVER_COMFYUI_URL": "http://a"}
        sources = Sources({}, environ, str(tmp_path))
        environ["DEV_SERVER_COMFYUI_URL"] = "http://b"
        assert urls(sources.load()) == ["http://a:80"]
