"""Where access lines go: the console, twistd's log, or a file."""

import os
import sys
from collections.abc import Callable
from typing import Protocol

from twisted.logger import Logger

_log = Logger(namespace="comfyproxy.access")


class Output(Protocol):
    """Takes whole lines, many at a time."""

    def write(self, lines: bytes) -> None:
        """Write ``lines``."""

    def reopen(self) -> None:
        """A file may have been moved away (logrotate): begin a new one at its path."""

    def close(self) -> None:
        """Write no more."""


class LogFile:
    """Appends to the file at ``path``. What cannot be written is dropped, and said once for each run of
    failures."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._failing = False
        self._descriptor = self._open()

    def write(self, lines: bytes) -> None:
        """Append ``lines``; waits for the disk."""
        try:
            _write_all(self._descriptor, lines)
        except OSError as error:
            if not self._failing:
                _log.error(
                    "The access log {path} cannot be written, its lines are lost: {error}",
                    path=self._path,
                    error=error,
                )
            self._failing = True
        else:
            self._failing = False

    def reopen(self) -> None:
        """Close the file and open its path anew; the old one is kept if that fails."""
        try:
            descriptor = self._open()
        except OSError as error:
            _log.error("The access log {path} cannot be opened anew: {error}", path=self._path, error=error)
            return
        os.close(self._descriptor)
        self._descriptor = descriptor

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)

    def _open(self) -> int:
        return os.open(
            self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o644
        )


class Console:
    """The terminal, or whatever standard output is; a daemon, which has none, writes into twistd's log
    instead.

    Twistd turns what is printed into log events, one a line with a prefix. This goes around that: in the
    foreground a line appears as it is, and a daemon's log gets one event for many lines.
    """

    def __init__(self) -> None:
        self._write: Callable[[bytes], None] = _write_to_log if _is_detached() else _write_to_stdout

    def write(self, lines: bytes) -> None:
        """Show ``lines``."""
        self._write(lines)

    def reopen(self) -> None:
        """Nothing to do."""

    def close(self) -> None:
        """Nothing to do."""


def open_output(path: str) -> Output:
    """The output for ``--access-log-file``: ``-`` is the console. Raises `OSError` if the file cannot be
    opened."""
    return Console() if path == "-" else LogFile(path)


def _is_detached() -> bool:
    try:
        return os.path.samestat(os.fstat(1), os.stat(os.devnull))
    except OSError:
        return True


def _write_to_stdout(lines: bytes) -> None:
    if sys.__stdout__ is None:
        return
    try:
        sys.__stdout__.flush()
        _write_all(1, lines)
    except OSError:
        # The reader of our output has gone (`comfyproxy run | head`), and there is nowhere else to say so.
        return


def _write_to_log(lines: bytes) -> None:
    _log.info("{lines}", lines=lines.decode(errors="replace").rstrip("\n"))


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
