"""The options of ``twistd comfyproxy``, made from the one table."""

from argparse import SUPPRESS, ArgumentParser
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from twisted.python import usage

from comfyproxy.core.configuration.commandline import HELP_FORMATTER, add_arguments
from comfyproxy.core.configuration.kinds import DIRECTORY, FILE, FLAG
from comfyproxy.core.configuration.option import Option
from comfyproxy.core.configuration.options import OPTIONS
from comfyproxy.core.configuration.settings import CommandLine
from comfyproxy.service.sources import Sources


def _completions() -> dict[str, Any]:
    """How a shell completes the values of options, where it can know."""
    actions: dict[str, Any] = {}
    for option in OPTIONS:
        if option.kind.choices:
            actions[option.name] = usage.CompleteList(option.kind.choices)
        elif option.kind is FILE:
            actions[option.name] = usage.CompleteFiles()
        elif option.kind is DIRECTORY:
            actions[option.name] = usage.CompleteDirs()
    return actions


class TableOptions(usage.Options):
    """Every option of the table, and what the command line said of them.

    An option that was not given is ``None``, false or missing here, and then a weaker source decides: ask
    `sources`, not the mapping.
    """

    synopsis = "[options]"
    optFlags: ClassVar = [[option.name, None, option.doc] for option in OPTIONS if option.kind is FLAG]
    optParameters: ClassVar = [
        [option.name, None, None, option.doc]
        for option in OPTIONS
        if option.kind is not FLAG and not option.repeatable
    ]
    compData = usage.Completions(
        multiUse=[option.name for option in OPTIONS if option.repeatable],
        mutuallyExclusive=[tuple(option.name for option in OPTIONS if option.group == "pages")],
        optActions=_completions(),
    )

    def command_line(self) -> CommandLine:
        """What was given, by the options' keys."""
        return {option.key: _as_given(self.get(option.name)) for option in OPTIONS}

    def sources(self, environ: Mapping[str, str], cwd: str) -> Sources:
        """The command line with the other sources of a configuration beside it."""
        return Sources(self.command_line(), environ, cwd)

    def opt_help_all(self) -> None:
        """show all options and exit"""
        print(self._usage(everything=True))
        raise SystemExit(0)

    def getUsage(self, width: int | None = None) -> str:
        """The options that are needed every day, in their groups, as ``comfyproxy run --help`` shows them."""
        return self._usage(everything=False)

    def _usage(self, everything: bool) -> str:
        parser = ArgumentParser(
            usage=SUPPRESS,
            description=getattr(self, "longdesc", None),
            add_help=False,
            formatter_class=HELP_FORMATTER,
        )
        add_arguments(parser, everything)
        return f"\n{parser.format_help()}"


def _as_given(value: Any) -> Any:
    return bool(value) if isinstance(value, int) else value


def _appending(option: Option) -> Callable[[TableOptions, str], None]:
    """The method by which `usage.Options` takes an option that may come several times."""

    def take(self: TableOptions, value: str) -> None:
        self.setdefault(option.name, []).append(value)

    take.__doc__ = option.doc
    return take


for _option in OPTIONS:
    if _option.repeatable:
        setattr(TableOptions, f"opt_{_option.key}", _appending(_option))
