"""Inputs that a coverage-guided fuzzer (atheris, libFuzzer) finds, and what must hold of every one.

A target takes any octets and fails by any exception that is not declared, and by what it asserts: that it
does not matter how octets arrive, that other parsers agree, that what was read can be written and read
again. `messages`, `connections`, `configuration`, `clients`, `servers` and `proxies` have them, `targets`
is their table, and `python -m conformance.fuzzing` runs them.
"""
