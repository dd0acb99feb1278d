"""`python -m conformance.fuzzing.instrumented JOBS`: targets under atheris, each until it fails or ends.

Standard input is a JSON array of them, each with libFuzzer's ``options`` and the ``log`` for what it prints;
standard output gets a line for each that has ended, its name and exit status. They are forked, so that what
is imported here is instrumented once: that takes as long as a short run.

Our heads are read by regular expressions, which have no branches to follow (atheris has hooks for those, but
they do not know possessive ones); so the oracles and our own checks are followed too.
"""

import json
import os
import sys
from collections.abc import Callable
from contextlib import redirect_stderr
from io import StringIO

import atheris

INSTRUMENTED = ["comfyproxy", "conformance", "h11", "tomllib"]


def main(jobs: int) -> None:
    """Fuzz what standard input names, ``jobs`` targets at a time."""
    waiting = json.load(sys.stdin)
    # It names each module.
    with redirect_stderr(StringIO()), atheris.instrument_imports(include=INSTRUMENTED):
        from conformance.fuzzing.targets import TARGETS
    running: dict[int, str] = {}
    while waiting or running:
        while waiting and len(running) < jobs:
            one = waiting.pop(0)
            running[_fork(TARGETS[one["target"]].run, one["options"], one["log"])] = one["target"]
        process, status = os.wait()
        print(json.dumps([running.pop(process), os.waitstatus_to_exitcode(status)]), flush=True)


def _fork(run: Callable[[bytes], None], options: list[str], log: str) -> int:
    process = os.fork()
    if process == 0:
        printed = os.open(log, os.O_WRONLY | os.O_CREAT)
        os.dup2(printed, sys.stdout.fileno())
        os.dup2(printed, sys.stderr.fileno())
        atheris.Setup([sys.argv[0], *options], run)
        # Does not return: the process ends with libFuzzer's exit status.
        atheris.Fuzz()
    return process


if __name__ == "__main__":
    main(int(sys.argv[1]))
