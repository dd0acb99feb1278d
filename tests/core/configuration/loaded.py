"""Configurations that are loaded from files in memory."""

from collections.abc import Mapping

import pytest

from comfyproxy.core.config import Config
from comfyproxy.core.configuration.diagnostics import Place
from comfyproxy.core.configuration.loading import Loaded, load
from comfyproxy.core.configuration.settings import CommandLine, command_line_layer
from comfyproxy.core.configuration.tapconf import TapConf, parse_tap_conf
from comfyproxy.errors import ConfigError


class Disk:
    """Files in memory, and the one directory /site/dist."""

    def __init__(self, files: Mapping[str, str]) -> None:
        self._files = files

    def read(self, path: str, named_by: Place | None) -> str:
        if path not in self._files:
            raise ConfigError(f"missing, named by {named_by}", path)
        return self._files[path]

    def is_directory(self, path: str) -> bool:
        return path == "/site/dist"

    def shown(self, path: str) -> str:
        return path.removeprefix("/site/")


FILES = {
    "/site/servers.txt": "http://a\nhttp://b weight=2\n",
    "/site/servers.JSON": '["http://c"]',
    "/site/empty.txt": "# nobody\n",
    "/etc/gpu.txt": "http://gpu[1-2]:8188\n",
}


def loaded(options: CommandLine, tap_conf: str = "") -> Loaded:
    conf = parse_tap_conf(tap_conf, "tap.conf", "/etc") if tap_conf else TapConf()
    return load([command_line_layer(options, "/site")], conf, Disk(FILES))


def config(options: CommandLine, tap_conf: str = "") -> Config:
    return loaded(options, tap_conf).config


def urls(config: Config, pool: str = "default") -> list[str]:
    return [address.url for address in config.pools[pool].addresses]


def failure(options: CommandLine, tap_conf: str = "") -> str:
    with pytest.raises(ConfigError) as caught:
        loaded(options, tap_conf)
    return str(caught.value)
