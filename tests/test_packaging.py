"""What is installed: the plugin where Twisted searches, the command, and the demo's files in the wheel."""

import os
import shutil
import subprocess
import sys
from importlib.metadata import entry_points, requires
from pathlib import Path
from zipfile import ZipFile

import pytest

ROOT = Path(__file__).resolve().parent.parent
SOURCES = ["comfyproxy", "twisted", "setup.py", "pyproject.toml", "README.md", "LICENSE"]
PLUGIN = "twisted/plugins/comfyproxy_plugin.py"

# Not "twist --help", which other plugins share: the plugin alone, and the file that it came from.
FIND_PLUGIN = """
from twisted.application.service import IServiceMaker
from twisted.plugin import getPlugins
from twisted.plugins import comfyproxy_plugin
assert any(maker.tapname == "comfyproxy" for maker in getPlugins(IServiceMaker))
print(comfyproxy_plugin.__file__)
"""


def run(*command: str | Path, cwd: Path, **environment: str) -> str:
    """What the command prints, both ways; it must succeed."""
    done = subprocess.run(
        command,
        cwd=cwd,
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=55,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.mark.parametrize("program", ["twistd", "twist"])
def test_twisted_lists_the_plugin_from_any_directory(program: str, tmp_path: Path) -> None:
    assert "comfyproxy" in run(Path(sys.executable).with_name(program), "--help", cwd=tmp_path)


def test_the_plugin_names_its_service_without_importing_it(tmp_path: Path) -> None:
    listing = (
        f"{FIND_PLUGIN}\nimport sys\nprint([name for name in sys.modules if name.startswith('comfyproxy')])"
    )
    assert run(sys.executable, "-c", listing, cwd=tmp_path).splitlines()[-1] == "[]"


def test_the_command_is_installed() -> None:
    (command,) = entry_points(group="console_scripts", name="comfyproxy")
    assert command.value == "comfyproxy.cli:main"


def test_every_dependency_says_how_old_it_may_be() -> None:
    assert [one for one in requires("comfyproxy") or [] if ">=" not in one and "extra" not in one] == []


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built as pip builds it but from a copy: setuptools writes beside the sources."""
    folder = tmp_path_factory.mktemp("wheel")
    for name in SOURCES:
        source = ROOT / name
        copy = shutil.copytree if source.is_dir() else shutil.copy
        copy(source, folder / name)
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    run(*pip, "wheel", "--no-deps", "--wheel-dir", folder / "dist", folder, cwd=folder)
    (built,) = (folder / "dist").iterdir()
    return built


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_the_wheel_carries_every_source_file_and_the_plugin(wheel: Path) -> None:
    packed = set(ZipFile(wheel).namelist())
    sources = {path.relative_to(ROOT).as_posix() for path in (ROOT / "comfyproxy").rglob("*.*")}
    missing = {name for name in sources if "__pycache__" not in name} - packed
    assert missing == set()
    assert PLUGIN in packed
    assert "twisted/__init__.py" not in packed
    assert "twisted/plugins/__init__.py" not in packed


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_twisted_finds_the_plugin_of_the_wheel(wheel: Path, tmp_path: Path) -> None:
    ZipFile(wheel).extractall(tmp_path / "site")
    found = run(sys.executable, "-c", FIND_PLUGIN, cwd=tmp_path, PYTHONPATH=str(tmp_path / "site"))
    assert found.strip() == str(tmp_path / "site" / PLUGIN)
