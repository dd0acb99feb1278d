"""The ``comfyproxy`` command.

Each subcommand is an entry of `SUBCOMMANDS`: a function that adds its arguments to a parser, and one that
does the work and returns the exit status. What only one subcommand needs, the reactor above all, is imported
in it, so that the others start without it.
"""

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from comfyproxy import __version__
from comfyproxy.core.configuration.commandline import HELP_FORMATTER, add_arguments
from comfyproxy.core.configuration.options import OPTIONS
from comfyproxy.errors import ConfigError
from comfyproxy.service.report import error_object, report_lines, report_object
from comfyproxy.service.sources import Sources


@dataclass(frozen=True, slots=True)
class Subcommand:
    """One word after ``comfyproxy``."""

    name: str
    summary: str
    add_arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status: 1 if the configuration is wrong, 2 if the call is."""
    arguments = _parser().parse_args(argv)
    run: Callable[[argparse.Namespace], int] = arguments.run
    try:
        status = run(arguments)
        sys.stdout.flush()
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 1
    except BrokenPipeError:
        # The reader, `head` for one, has seen enough; without this Python would complain again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return status


def sources_of(arguments: argparse.Namespace) -> Sources:
    """The sources of the configuration that a command line, its environment and its directory make up."""
    options = {option.key: getattr(arguments, option.key) for option in OPTIONS}
    return Sources(options, os.environ, os.getcwd())


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "comfyproxy", description="A load-balancing reverse proxy for pools of ComfyUI servers."
    )
    parser.add_argument("--version", action="version", version=f"comfyproxy {__version__}")
    subparsers = parser.add_subparsers(required=True, metavar="COMMAND")
    for subcommand in SUBCOMMANDS:
        subparser = subparsers.add_parser(
            subcommand.name,
            help=subcommand.summary,
            description=f"{subcommand.summary[:1].upper()}{subcommand.summary[1:]}.",
            usage=f"comfyproxy {subcommand.name} [options]",
            formatter_class=HELP_FORMATTER,
            allow_abbrev=False,
        )
        subcommand.add_arguments(subparser)
        subparser.set_defaults(run=subcommand.run)
    return parser


def _add_check_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of tables")
    add_arguments(parser)


def check(arguments: argparse.Namespace) -> int:
    """Read the whole configuration and show what it comes to, without starting anything."""
    try:
        loaded = sources_of(arguments).load()
    except ConfigError as error:
        if arguments.json:
            print(json.dumps(error_object(error), indent=2))
        raise
    for warning in loaded.warnings:
        print(f"{warning.place}: warning: {warning.message}", file=sys.stderr)
    if arguments.json:
        print(json.dumps(report_object(loaded), indent=2))
    else:
        colour = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
        sys.stdout.writelines(f"{line}\n" for line in report_lines(loaded.config, colour=colour))
    return 0


def run(arguments: argparse.Namespace) -> int:
    """Run the proxy in the foreground until it is told to stop."""
    from comfyproxy.service.foreground import install_reactor, run_in_foreground

    sources = sources_of(arguments)
    sources.load()
    reactor = install_reactor()
    from comfyproxy.service.daemon import ProxyService
    from comfyproxy.service.descriptors import raise_limit

    raise_limit()
    return run_in_foreground(reactor, lambda: ProxyService(reactor, sources))


def _add_demo_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--servers", type=_number_of_servers, default=3, metavar="N", help="simulated servers (default: 3)"
    )
    parser.add_argument(
        "--port", type=int, default=8080, help="where the proxy listens (default: 8080; 0: any)"
    )
    parser.add_argument(
        "--once", action="store_true", help="end after the first prompt; status 1 if it failed"
    )


def _number_of_servers(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 on")
    return int(text)


def demo(arguments: argparse.Namespace) -> int:
    """Show a proxy at work before simulated servers."""
    from comfyproxy.demo.showcase import run_demo

    return run_demo(arguments.servers, arguments.port, arguments.once)


SUBCOMMANDS = (
    Subcommand("run", "run the proxy in the foreground", add_arguments, run),
    Subcommand("demo", "show it at work before three simulated servers", _add_demo_arguments, demo),
    Subcommand("check", "read the configuration and show what it comes to", _add_check_arguments, check),
)


if __name__ == "__main__":
    sys.exit(main())
