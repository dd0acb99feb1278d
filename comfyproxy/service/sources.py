"""Where a configuration comes from: command line, environment, ``.env``, ``tap.conf`` and server files."""

import os
from collections.abc import Mapping

from comfyproxy.core.configuration.diagnostics import ConfigWarning, Place
from comfyproxy.core.configuration.dotenv import Variable, parse_dotenv
from comfyproxy.core.configuration.loading import Loaded, load
from comfyproxy.core.configuration.settings import (
    CommandLine,
    Given,
    Layer,
    Settings,
    command_line_layer,
    misspelt_variables,
    variables_layer,
)
from comfyproxy.core.configuration.tapconf import TapConf, parse_tap_conf
from comfyproxy.errors import ConfigError

__all__ = ["Loaded", "Sources"]


class Sources:
    """All sources of one process, to be read as often as one likes.

    ``options`` are those of the command line, by key. They, the environment and the working directory are
    remembered as they are now, and all paths are made absolute with them: a daemon that has changed its
    directory finds at SIGHUP what it found when it started.
    """

    def __init__(self, options: CommandLine, environ: Mapping[str, str], cwd: str) -> None:
        self._cwd = os.path.abspath(cwd)
        self._disk = _Disk(self._cwd)
        self._command_line = command_line_layer(options, self._cwd)
        self._environ = {name: Variable(text, Place(name)) for name, text in environ.items()}

    def load(self) -> Loaded:
        """Read everything anew; raises ConfigError."""
        environment = variables_layer(self._environ, self._cwd)
        dotenv, warnings = self._read_dotenv(Settings((self._command_line, environment)))
        layers = (self._command_line, environment, dotenv)
        loaded = load(layers, self._read_tap_conf(Settings(layers)), self._disk)
        return Loaded(loaded.config, (*misspelt_variables(self._environ), *warnings, *loaded.warnings))

    def _read_dotenv(self, settings: Settings) -> tuple[Layer, list[ConfigWarning]]:
        found = self._find(settings.given("env_file"), ".env")
        if found is None:
            return {}, []
        path, text = found
        variables, warnings = parse_dotenv(text, self._disk.shown(path))
        return variables_layer(variables, os.path.dirname(path)), [*warnings, *misspelt_variables(variables)]

    def _read_tap_conf(self, settings: Settings) -> TapConf:
        found = self._find(settings.given("config"), "tap.conf")
        if found is None:
            return TapConf()
        path, text = found
        return parse_tap_conf(text, self._disk.shown(path), os.path.dirname(path))

    def _find(self, given: Given | None, default: str) -> tuple[str, str] | None:
        """The path and the text of a file: one that is named must be there, the default may be missing."""
        if given is None:
            path = os.path.join(self._cwd, default)
            return (path, self._disk.read(path, None)) if os.path.isfile(path) else None
        (path,) = given.paths()
        return path, self._disk.read(path, given.place)


class _Disk:
    """The files, with names as they are seen from the directory where the process started."""

    def __init__(self, cwd: str) -> None:
        self._prefix = os.path.join(cwd, "")

    def read(self, path: str, named_by: Place | None) -> str:
        try:
            with open(path, "rb") as file:
                content = file.read()
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            source = f"; {named_by} names it" if named_by else ""
            raise ConfigError(f"the file cannot be read: {reason}{source}", self.shown(path)) from None
        try:
            return content.decode()
        except UnicodeDecodeError as error:
            line = content.count(b"\n", 0, error.start) + 1
            raise ConfigError("the file is not UTF-8 from here on", self.shown(path), line) from None

    def is_directory(self, path: str) -> bool:
        return os.path.isdir(path)

    def shown(self, path: str) -> str:
        return path.removeprefix(self._prefix)
