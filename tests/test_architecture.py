"""The rules of the source tree that no linter knows: who imports whom, a test file per module, names, sizes.

They are data at the top of this file. A rule that should give way is changed there, beside its reason, and
not worked around in the code.
"""

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "comfyproxy"
TESTS = ROOT / "tests"

MAX_LINES = 450

# Words that say nothing about what lives in a file.
EMPTY_WORDS = {"manager", "handler", "engine", "processor", "util", "utils", "helper", "helpers", "misc"}


@dataclass(frozen=True)
class Layer:
    """What `modules` may import: which of ours, and whether others than the standard library."""

    modules: str
    ours: tuple[str, ...]
    others: bool = True


# A module belongs to the first layer that it matches. Its own package and `errors` it may always import.
LAYERS = [
    Layer("comfyproxy.errors", ours=(), others=False),
    Layer("comfyproxy.core*", ours=(), others=False),
    Layer("comfyproxy.comfyui*", ours=("comfyproxy.core",), others=False),
    Layer("comfyproxy.proxy*", ours=("comfyproxy.core",)),
    Layer("comfyproxy.web*", ours=("comfyproxy.core", "comfyproxy.proxy")),
    Layer("comfyproxy.admin*", ours=("comfyproxy.core", "comfyproxy.proxy")),
    Layer("comfyproxy.demo*", ours=("comfyproxy",)),
    Layer("comfyproxy.testing*", ours=("comfyproxy",)),
    Layer("comfyproxy.service*", ours=("comfyproxy",)),
    Layer("comfyproxy.tap", ours=("comfyproxy",)),
    Layer("comfyproxy.cli", ours=("comfyproxy",)),
    Layer("comfyproxy", ours=()),
]


@dataclass(frozen=True)
class Reserved:
    """A name that only some modules may import, and why the others may not."""

    name: str
    allowed: tuple[str, ...]
    reason: str


RESERVED = [
    Reserved(
        "twisted.web.proxy",
        ("comfyproxy.web.resource",),
        "importing it installs the default reactor, and its base class is deprecated",
    ),
    Reserved(
        "twisted.internet.reactor",
        ("comfyproxy.tap", "comfyproxy.cli", "comfyproxy.service*"),
        "the reactor is an argument everywhere else: tests give a clock, embedders their own",
    ),
]

# Modules without a test file of their own name, by their path in the package, each with the reason.
UNTESTED: dict[str, str] = dict.fromkeys(
    (f"proxy/{name}.py" for name in ("front", "upstream")),
    "tests/proxy_rules holds them together, rule by rule: what each does shows only from outside",
)


@dataclass(frozen=True)
class Import:
    """One imported name, at a line of a module; `from a import b` is the name a.b, be b a module or not."""

    module: str
    line: int
    name: str
    everything: bool = False

    def __str__(self) -> str:
        return f"{self.module}, line {self.line}: imports {self.name}{'.*' if self.everything else ''}"


def module_name(path: Path) -> str:
    """comfyproxy/core/balancing/pool.py -> comfyproxy.core.balancing.pool"""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports_of(module: str, source: str, is_package: bool = False) -> Iterator[Import]:
    """Every import of a module, wherever it stands in it: in functions and under TYPE_CHECKING too."""
    here = module.split(".")
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (Import(module, node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = here[: len(here) - node.level + is_package] if node.level else []
            start = ".".join([*above, *filter(None, [node.module])])
            for alias in node.names:
                everything = alias.name == "*"
                yield Import(
                    module, node.lineno, start if everything else f"{start}.{alias.name}", everything
                )


def within(name: str, package: str) -> bool:
    """Is this the package, or something in it?"""
    return name == package or name.startswith(f"{package}.")


def broken_rules(found: Import) -> Iterator[str]:
    """The rules that one import breaks, each as a sentence."""
    layer = next((layer for layer in LAYERS if fnmatchcase(found.module, layer.modules)), None)
    if layer is None:
        yield "the module belongs to no layer: add it to LAYERS with what it may import"
        return
    if found.everything:
        yield "a reader cannot see where a name comes from: import names, not *"
    if within(found.name, "comfyproxy"):
        own = ".".join(found.module.split(".")[:2])
        ours = [own, *layer.ours, "comfyproxy.errors", "comfyproxy.__version__"]
        if not any(within(found.name, package) for package in ours):
            yield f"of comfyproxy, {layer.modules} imports only {', '.join(ours[:-1])}"
    elif not layer.others and found.name.split(".")[0] not in sys.stdlib_module_names:
        yield f"{layer.modules} decides without I/O and imports the standard library only"
    for reserved in RESERVED:
        if within(found.name, reserved.name) and not any(
            fnmatchcase(found.module, one) for one in reserved.allowed
        ):
            yield f"{reserved.name} is for {', '.join(reserved.allowed)}: {reserved.reason}"


DEFINITIONS = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def public_definitions(tree: ast.Module) -> Iterator[ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef]:
    """The public classes and functions of a module, and the public classes in those classes."""
    todo = list(tree.body)
    for node in todo:
        if isinstance(node, DEFINITIONS) and not node.name.startswith("_"):
            yield node
            if isinstance(node, ast.ClassDef):
                todo.extend(one for one in node.body if isinstance(one, ast.ClassDef))


@pytest.fixture(params=sorted(PACKAGE.rglob("*.py")), ids=module_name)
def path(request: pytest.FixtureRequest) -> Path:
    """Each module of the package in turn."""
    given: Path = request.param
    return given


def test_imports_follow_the_layers(path: Path) -> None:
    found = imports_of(module_name(path), path.read_text(), path.name == "__init__.py")
    broken = [f"{one}\n    {rule}" for one in found for rule in broken_rules(one)]
    assert not broken, "\n".join(["", *broken])


def test_the_file_name_says_what_lives_there(path: Path) -> None:
    inside = path.relative_to(PACKAGE).with_suffix("").as_posix()
    empty = EMPTY_WORDS.intersection(inside.replace("_", "/").split("/"))
    assert not empty, f"comfyproxy/{inside}.py: {', '.join(empty)} says nothing about what is in it"


def test_the_file_is_not_long(path: Path) -> None:
    lines = len(path.read_text().splitlines())
    assert lines <= MAX_LINES, (
        f"{module_name(path)} has {lines} lines, more than {MAX_LINES}: it is two modules"
    )


def test_the_module_has_its_test_file(path: Path) -> None:
    inside = path.relative_to(PACKAGE)
    code = [node for node in ast.parse(path.read_text()).body if isinstance(node, DEFINITIONS)]
    if inside.name == "__init__.py" and not code:
        return
    mirror = TESTS / inside.parent / f"test_{inside.name}"
    if reason := UNTESTED.get(inside.as_posix()):
        assert not mirror.exists(), f"{inside} has its tests now; UNTESTED still says: {reason}"
    else:
        assert mirror.exists(), f"the tests of comfyproxy/{inside} belong in {mirror.relative_to(ROOT)}"


def test_what_is_public_says_what_it_is(path: Path) -> None:
    tree = ast.parse(path.read_text())
    silent = [] if ast.get_docstring(tree) else ["the module itself"]
    silent += [
        f"{node.name}, line {node.lineno}" for node in public_definitions(tree) if not ast.get_docstring(node)
    ]
    assert not silent, "\n".join([f"public in {module_name(path)}, and without a docstring:", *silent])


def test_every_exception_to_the_test_file_rule_is_a_module() -> None:
    assert [name for name in UNTESTED if not (PACKAGE / name).exists()] == []


@pytest.mark.parametrize(
    ("module", "source", "rule"),
    [
        ("comfyproxy.core.balancing.pool", "import twisted", "standard library only"),
        ("comfyproxy.core.balancing.pool", "def f():\n    import twisted.web", "standard library only"),
        (
            "comfyproxy.core.balancing.pool",
            "from comfyproxy.proxy import relay",
            "only comfyproxy.core, comfyproxy.errors",
        ),
        (
            "comfyproxy.core.balancing.pool",
            "from comfyproxy import proxy",
            "only comfyproxy.core, comfyproxy.errors",
        ),
        (
            "comfyproxy.core.balancing.pool",
            "from ...proxy import relay",
            "only comfyproxy.core, comfyproxy.errors",
        ),
        (
            "comfyproxy.core.balancing.pool",
            "import comfyproxy.corentin",
            "only comfyproxy.core, comfyproxy.errors",
        ),
        (
            "comfyproxy.comfyui.router",
            "from comfyproxy.proxy.relay import Relay",
            "comfyproxy.comfyui* imports only",
        ),
        ("comfyproxy.proxy.exchange", "import comfyproxy.comfyui.router", "comfyproxy.proxy* imports only"),
        (
            "comfyproxy.proxy.exchange",
            "from comfyproxy.service import daemon",
            "comfyproxy.proxy* imports only",
        ),
        ("comfyproxy.proxy.exchange", "from twisted.internet import reactor", "the reactor is an argument"),
        ("comfyproxy.proxy.exchange", "import twisted.internet.reactor as r", "the reactor is an argument"),
        (
            "comfyproxy.proxy.exchange",
            "from twisted.internet.reactor import run",
            "the reactor is an argument",
        ),
        ("comfyproxy.web.websocket", "from twisted.web import proxy", "installs the default reactor"),
        ("comfyproxy.web.websocket", "from twisted.web.proxy import Proxy", "installs the default reactor"),
        ("comfyproxy.service.daemon", "from twisted.web.http import *", "import names"),
        ("comfyproxy.elsewhere.thing", "import os", "belongs to no layer"),
    ],
)
def test_a_forbidden_import_is_found_and_its_rule_named(module: str, source: str, rule: str) -> None:
    (broken,) = [rule for found in imports_of(module, source) for rule in broken_rules(found)]
    assert rule in broken


@pytest.mark.parametrize(
    ("module", "source"),
    [
        (
            "comfyproxy.core.balancing.pool",
            "import heapq\nfrom comfyproxy.core.configuration.addresses import Address",
        ),
        ("comfyproxy.core.balancing.pool", "from comfyproxy.errors import ConfigError"),
        ("comfyproxy.core.balancing.pool", "from .addresses import Address"),
        ("comfyproxy.comfyui.router", "from comfyproxy.core.balancing.routing import Pin"),
        ("comfyproxy.proxy.exchange", "from twisted.internet import defer, protocol"),
        ("comfyproxy.web.resource", "from twisted.web.proxy import ReverseProxyResource"),
        ("comfyproxy.tap", "from twisted.internet import reactor\nimport comfyproxy.service.daemon"),
    ],
)
def test_an_allowed_import_breaks_no_rule(module: str, source: str) -> None:
    assert [rule for found in imports_of(module, source) for rule in broken_rules(found)] == []
