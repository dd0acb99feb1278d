"""Which source decides: options as each source gives them, and the strongest word on each."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from os.path import join, normpath
from typing import Any
from urllib.parse import unquote

from comfyproxy.core.configuration.diagnostics import ConfigWarning, Place
from comfyproxy.core.configuration.dotenv import Variable
from comfyproxy.core.configuration.kinds import FLAG
from comfyproxy.core.configuration.option import VARIABLE_PREFIX, Option
from comfyproxy.core.configuration.options import OPTION, OPTIONS

_FILE_URL = re.compile(r"file:(?://(?P<host>[^/]*))?(?P<path>/.*)?", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Given:
    """One option as one source gives it; paths in it are relative to ``directory``."""

    option: Option
    texts: tuple[str, ...]
    place: Place
    directory: str

    def values(self) -> tuple[Any, ...]:
        """What the texts mean; raises ConfigError."""
        try:
            return tuple(self.option.kind.parse(text.strip()) for text in self.texts)
        except ValueError as error:
            raise self.place.error(str(error)) from None

    def paths(self) -> tuple[str, ...]:
        """The texts as absolute paths, of ``file://`` URLs too; raises ConfigError."""
        return tuple(self._path(text) for text in self.values())

    def _path(self, text: str) -> str:
        if not (url := _FILE_URL.fullmatch(text)):
            return normpath(join(self.directory, text))
        if not url["path"]:
            raise self.place.error(
                f"{text} is not a file:// URL with a whole path, such as file:///etc/servers.txt"
            )
        if url["host"] not in ("", "localhost", None):
            raise self.place.error(
                f"{text} names a file of another machine, {url['host']}; write file:/// for one of this"
            )
        return normpath(unquote(url["path"]))


CommandLine = Mapping[str, str | Sequence[str] | bool | None]
"""Options as a parser of command lines leaves them, by key; ``None`` or false if not given."""

Layer = Mapping[str, Given]
"""What one source gives, by the options' keys."""


class Settings:
    """Layers, the strongest first."""

    def __init__(self, layers: Sequence[Layer]) -> None:
        self._layers = tuple(layers)

    def below(self, layer: Layer) -> "Settings":
        """The same under a stronger layer: what a pool or a route says of itself goes before all else."""
        return Settings((layer, *self._layers))

    def given(self, key: str) -> Given | None:
        """The strongest word on an option, ``None`` if there is none."""
        group = OPTION[key].group
        for layer in self._layers:
            if key in layer:
                return layer[key]
            if group and any(given.option.group == group for given in layer.values()):
                return None
        return None

    def value(self, key: str) -> Any:
        """What an option is set to, or its default; a tuple if it is repeatable. Raises ConfigError."""
        given = self.given(key)
        if given is None:
            return OPTION[key].default
        values = given.values()
        return values if given.option.repeatable else values[0]


def give(option: Option, texts: Iterable[str], place: Place, directory: str) -> Given:
    """Take what a source says of an option, divided where one text holds several values."""
    if option.repeatable and option.kind.separator:
        parts = (part.strip() for text in texts for part in re.split(option.kind.separator, text))
        # Nothing but blanks is kept as one empty value, for its kind to complain of.
        texts = tuple(part for part in parts if part) or ("",)
    return Given(option, tuple(texts), place, directory)


def command_line_layer(options: CommandLine, directory: str) -> Layer:
    """What a command line gives."""
    layer = {}
    for key, value in options.items():
        if value is None or value is False or value == []:
            continue
        option = OPTION[key]
        texts = [FLAG.show(True)] if value is True else [value] if isinstance(value, str) else value
        layer[key] = give(option, texts, Place(f"--{option.name}"), directory)
    return layer


def variables_layer(variables: Mapping[str, Variable], directory: str) -> Layer:
    """What variables give, of the environment or of a ``.env`` file; one that is empty counts as not set."""
    layer = {}
    for option in OPTIONS:
        variable = variables.get(option.environment_variable)
        if variable and variable.text.strip():
            layer[option.key] = give(option, (variable.text,), variable.place, directory)
    return layer


def misspelt_variables(variables: Mapping[str, Variable]) -> list[ConfigWarning]:
    """A warning for each variable that looks like one of ours with a slip in it.

    An unknown one alone is no reason: for a service of our name Kubernetes sets ``COMFYPROXY_PORT`` and more.
    """
    known = {option.key.upper(): option.environment_variable for option in OPTIONS}
    warnings = []
    for name, variable in variables.items():
        if not name.startswith(VARIABLE_PREFIX) or name in known.values():
            continue
        for near in get_close_matches(name.removeprefix(VARIABLE_PREFIX), known, n=1, cutoff=0.8):
            message = f"{name} sets nothing; did you mean {known[near]}?"
            warnings.append(ConfigWarning(variable.place, message))
    return warnings
