"""The plugin, as twistd uses it."""

from pathlib import Path

import pytest
from twisted.application.service import IServiceMaker
from twisted.internet.testing import MemoryReactorClock
from twisted.plugin import getPlugins
from twisted.python.usage import UsageError

from comfyproxy import tap
from comfyproxy.service.daemon import ProxyService


@pytest.fixture(autouse=True)
def empty_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory without .env or tap.conf, and an environment that says nothing."""
    monkeypatch.chdir(tmp_path)
    for name in ("DEV_SERVER_COMFYUI_URL", "DEV_SERVER_COMFYUI_FILE"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def parsed(*arguments: str) -> tap.Options:
    options = tap.Options()
    options.parseOptions(list(arguments))
    return options


def test_twistd_finds_the_plugin() -> None:
    (maker,) = (plugin for plugin in getPlugins(IServiceMaker) if plugin.tapname == "comfyproxy")
    assert maker.options is tap.Options
    assert maker.makeService is tap.makeService


def test_nothing_given_means_one_local_comfyui() -> None:
    service = tap.makeService(parsed(), MemoryReactorClock())
    assert isinstance(service, ProxyService)
    (pool,) = service.config.pools.values()
    assert [address.url for address in pool.addresses] == ["http://127.0.0.1:8188"]


def test_repeated_options_are_joined(empty_directory: Path) -> None:
    (empty_directory / "servers.txt").write_text("http://c:1\n")
    options = parsed("--url", "http://a:1", "--url=http://b:1", "--file", "servers.txt")
    (pool,) = tap.makeService(options, MemoryReactorClock()).config.pools.values()
    assert [address.host for address in pool.addresses] == ["a", "b", "c"]


def test_a_mistake_is_told_with_its_place(empty_directory: Path) -> None:
    (empty_directory / "servers.txt").write_text("http://a:1\nhttp://gpu[3-1]:1\n")
    with pytest.raises(UsageError, match=r"servers\.txt:2:\d+: .*range"):
        parsed("--file", "servers.txt")


def test_relative_files_are_found_after_the_daemon_has_left_its_directory(
    empty_directory: Path, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    (empty_directory / "servers.txt").write_text("http://a:1\n")
    service = tap.makeService(parsed("--file", "servers.txt"), MemoryReactorClock())
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    (empty_directory / "servers.txt").write_text("http://b:1\n")
    assert [address.host for address in service.reload()["default"].added] == ["b"]
