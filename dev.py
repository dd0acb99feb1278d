#!/usr/bin/env python3
"""The developer's verbs: python3 dev.py VERB [ARGUMENTS]. Each makes or updates .venv first.

Arguments go to the tool behind the verb: `python3 dev.py test tests/core -x`.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from hashlib import sha256
from pathlib import Path

ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
OLDEST_PYTHON = (3, 11)
PIP_OPTIONS = ["--disable-pip-version-check", "--root-user-action=ignore"]
COVERAGE = [
    "--cov=comfyproxy.core",
    "--cov-branch",
    "--cov-report=term-missing:skip-covered",
    "--cov-fail-under=100",
]
VERBS: dict[str, Callable[[Sequence[str]], int]] = {}


def verb(function: Callable[[Sequence[str]], int]) -> Callable[[Sequence[str]], int]:
    """Register a function as the verb of its name; its docstring is its help."""
    VERBS[function.__name__] = function
    return function


def prepare(extra: str = "") -> None:
    """Make .venv and install comfyproxy in it, editable, with one of its extras, unless that is done."""
    sources = [(ROOT / name).read_bytes() for name in ("pyproject.toml", "setup.py")]
    wanted = sha256(b"".join(sources)).hexdigest()
    stamp = VENV / f"installed-{extra}"
    if stamp.exists() and stamp.read_text() == wanted:
        return
    if not (VENV / "bin" / "python").exists():
        print("making .venv ...", flush=True)
        if subprocess.run([sys.executable, "-m", "venv", VENV], stdout=subprocess.DEVNULL).returncode:
            shutil.rmtree(VENV, ignore_errors=True)
            sys.exit("python3 -m venv does not work here; on Debian or Ubuntu: apt install python3-venv")
    target = f"{ROOT}[{extra}]" if extra else f"{ROOT}"
    print(f"installing {target} in .venv ...", flush=True)
    if code := run("python", "-m", "pip", "install", "--quiet", *PIP_OPTIONS, "--editable", target):
        sys.exit(code)
    for done in {"", *_contained(extra)}:
        (VENV / f"installed-{done}").write_text(wanted)


def _contained(extra: str) -> Iterator[str]:
    """``extra`` and the extras that it installs with it."""
    # Here, so that an older Python gets as far as being told that it is too old.
    import tomllib

    yield extra
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for requirement in extras.get(extra, ()):
        if requirement.startswith("comfyproxy["):
            yield from _contained(requirement.removeprefix("comfyproxy[").removesuffix("]"))


def run(program: str, *arguments: str | Path) -> int:
    """Run a program of .venv in the project's directory; its exit status."""
    return subprocess.run([VENV / "bin" / program, *arguments], cwd=ROOT).returncode


@verb
def install(arguments: Sequence[str]) -> int:
    """.venv with what the other verbs need, so that they can run side by side; arguments are extras (dev)"""
    for extra in arguments or ["dev"]:
        prepare(extra)
    return 0


@verb
def test(arguments: Sequence[str]) -> int:
    """all tests but those against real peers; --coverage does that too, other arguments are pytest's"""
    prepare("test")
    others = [one for one in arguments if one != "--coverage"]
    measured = [*COVERAGE, "--covered-by=tests/core"] if "--coverage" in arguments else []
    return run("pytest", "-m", "not real", *measured, *others)


@verb
def coverage(arguments: Sequence[str]) -> int:
    """the branches of comfyproxy/core that its own tests take: all of them, or it fails"""
    prepare("test")
    return run("pytest", "-q", "tests/core", *COVERAGE, *arguments)


@verb
def deep(arguments: Sequence[str]) -> int:
    """the property tests, a hundred times as long"""
    prepare("test")
    return run("pytest", "-m", "hypothesis", "--hypothesis-profile=deep", "--timeout=3600", *arguments)


@verb
def real(arguments: Sequence[str]) -> int:
    """the tests against a real ComfyUI and a real browser; .ci/provision-real installs both"""
    prepare("test")
    return run("pytest", "-m", "real", "tests/real", *arguments)


@verb
def soak(arguments: Sequence[str]) -> int:
    """mixed load while servers are killed, stopped and reloaded; --minutes N (3), --json"""
    prepare("test")
    return run("python", "tests/faults/soak.py", *arguments)


@verb
def lint(arguments: Sequence[str]) -> int:
    """ruff: rules and format; changes nothing"""
    prepare("dev")
    return run("ruff", "check", *arguments) or run("ruff", "format", "--check", *arguments)


@verb
def format(arguments: Sequence[str]) -> int:
    """ruff: format, and mend what can be mended by itself"""
    prepare("dev")
    return run("ruff", "check", "--fix", *arguments) or run("ruff", "format", *arguments)


@verb
def types(arguments: Sequence[str]) -> int:
    """mypy, strict where no untyped library is touched"""
    prepare("dev")
    return run("mypy", *arguments)


@verb
def docs(arguments: Sequence[str]) -> int:
    """what the documentation says against what is there"""
    prepare("test")
    return run("pytest", "-q", "tests/test_docs.py", *arguments)


@verb
def benchmark(arguments: Sequence[str]) -> int:
    """comfyproxy beside the other proxies that are on this machine; --quick takes a minute"""
    prepare()
    return run("python", "-m", "benchmarks", *arguments)


@verb
def fuzz(arguments: Sequence[str]) -> int:
    """search for inputs that break a parser, or the proxy; --seconds N for each target, --target T for one"""
    prepare("fuzz")
    return run("python", "-m", "conformance.fuzzing", *arguments)


@verb
def autobahn(arguments: Sequence[str]) -> int:
    """the Autobahn test suite through the proxy and without it; needs CPython 2.7; --whole takes long"""
    prepare("test")
    if code := subprocess.run([ROOT / ".ci" / "provision-autobahn"]).returncode:
        return code
    return run("python", "-m", "conformance.wstest", *arguments)


@verb
def anchors(arguments: Sequence[str]) -> int:
    """what nginx, HAProxy, Envoy and others make of malformed messages; --page writes that down"""
    prepare("test")
    return run("python", "-m", "conformance.anchors", *arguments)


@verb
def news(arguments: Sequence[str]) -> int:
    """the next release's part of CHANGELOG.md as the fragments make it; changes nothing"""
    prepare("dev")
    return run("towncrier", "build", "--draft", *arguments)


@verb
def demo(arguments: Sequence[str]) -> int:
    """three simulated ComfyUI servers behind the proxy, on this machine"""
    prepare()
    os.chdir(ROOT)
    os.execv(VENV / "bin" / "comfyproxy", ["comfyproxy", "demo", *arguments])


def main(arguments: Sequence[str]) -> int:
    """Do what the first argument says; without one that is known, say what there is."""
    if sys.version_info < OLDEST_PYTHON:
        sys.exit(f"comfyproxy needs Python 3.11 or newer; this is {sys.version.split()[0]}")
    chosen = VERBS.get(arguments[0]) if arguments else None
    if chosen:
        return chosen(arguments[1:])
    print(__doc__, *(f"  {name:10}{function.__doc__}" for name, function in VERBS.items()), sep="\n")
    return 0 if not arguments or arguments[0] in ("-h", "--help", "help") else 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
