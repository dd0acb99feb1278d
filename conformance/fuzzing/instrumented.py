"""`python -m conformance.fuzzing.instrumented TARGET ...`: one target under atheris, until it fails or ends.

The rest of the arguments are libFuzzer's. What is imported here is instrumented. Our heads are read by
regular expressions, which have no branches to follow (atheris has hooks for those, but they do not know
possessive ones); so the oracles and our own checks are followed too.
"""

import sys

import atheris

INSTRUMENTED = ["comfyproxy", "conformance", "h11", "tomllib"]


def main(arguments: list[str]) -> None:
    """Fuzz; does not return, the process ends with libFuzzer's exit status."""
    with atheris.instrument_imports(include=INSTRUMENTED):
        from conformance.fuzzing.targets import TARGETS
    target = TARGETS[arguments[1]]
    atheris.Setup([arguments[0], *arguments[2:]], target.run)
    atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv)
