"""The options of the table on a command line, and a help that fits a screen."""

from argparse import SUPPRESS, Action, ArgumentParser, HelpFormatter
from collections.abc import Mapping
from functools import partial
from typing import Any

from comfyproxy.core.configuration.kinds import FLAG
from comfyproxy.core.configuration.options import OPTIONS

HELP_FORMATTER = partial(HelpFormatter, max_help_position=30)
"""For parsers that `add_arguments` fills: most options then take one line."""

_EVERYDAY = "url file app placement balance probe listen static frontend access-log debug config"
EVERYDAY = frozenset(_EVERYDAY.split())
"""The options that ``--help`` shows."""


class _HelpAll(Action):
    """Shows the help with what is hidden in it otherwise."""

    def __init__(self, hidden: Mapping[Action, str], **shape: Any) -> None:
        super().__init__(nargs=0, default=SUPPRESS, **shape)
        self._hidden = hidden

    def __call__(self, parser: ArgumentParser, *ignored: object) -> None:
        for action, text in self._hidden.items():
            action.help = text
        parser.print_help()
        parser.exit()


def add_arguments(parser: ArgumentParser, everything: bool = False) -> None:
    """Give a parser every option, in groups; what is not given on the command line stays None.

    Its ``--help`` shows what is needed every day or, if that is wanted, ``everything``, as its
    ``--help-all`` does.
    """
    hidden: dict[Action, str] = {}
    text = f"show all {len(OPTIONS)} options and exit"
    parser.add_argument("--help-all", action=_HelpAll, help=text, hidden=hidden)
    groups: dict[str, Any] = {}
    for option in OPTIONS:
        if option.section not in groups:
            groups[option.section] = parser.add_argument_group(option.section)
        shape: dict[str, Any] = {
            "metavar": option.kind.metavar,
            "action": "append" if option.repeatable else "store",
        }
        if option.kind is FLAG:
            shape = {"action": "store_true"}
        text = option.help.replace("%", "%%")
        action = groups[option.section].add_argument(
            f"--{option.name}", dest=option.key, default=None, help=text, **shape
        )
        if not everything and option.name not in EVERYDAY:
            action.help = SUPPRESS
            hidden[action] = text
