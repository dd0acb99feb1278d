"""Runs wstest against servers that are listening."""

import json
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

from conformance.wstest.grades import Cases

CACHE = Path(os.environ.get("COMFYPROXY_REAL_CACHE") or Path.home() / ".cache" / "comfyproxy-real")
WSTEST = CACHE / "autobahn" / "bin" / "wstest"
INSTALLED = CACHE / "installed" / "autobahn"

QUICK = ("1.*", "2.*", "3.*", "4.*", "5.*", "6.*", "7.*", "10.*")
"""247 cases, some eight seconds a server."""

SLOW = ("9.1.1", "9.1.3", "9.2.3", "9.5.4", "9.6.4", "9.7.1", "9.8.1")
COMPRESSED = ("12.1.1", "12.2.3", "12.4.3", "12.5.5", "13.1.3", "13.5.3", "13.7.1")
"""Some of the groups that take minutes under Python 2: of large messages, and of compression."""

WHOLE = ("*",)


class SuiteFailed(Exception):
    """wstest ended without a report; the message is what it wrote."""


def why_missing() -> str | None:
    """The reason why wstest cannot be run here, or ``None`` when it can."""
    if INSTALLED.is_file():
        return None
    return f"no Autobahn test suite in {CACHE}: run .ci/provision-autobahn, which needs CPython 2.7"


def run(name: str, port: int, cases: Sequence[str], directory: Path, seconds: float) -> Cases:
    """Let wstest speak to the server at ``port``; ``directory`` is its own. Raises `SuiteFailed`."""
    specification = {
        "outdir": str(directory / "reports"),
        "servers": [{"agent": name, "url": f"ws://127.0.0.1:{port}/ws"}],
        "cases": list(cases),
        "exclude-cases": [],
        "exclude-agent-cases": {},
    }
    path = directory / "specification.json"
    path.write_text(json.dumps(specification))
    command = [str(WSTEST), "--mode=fuzzingclient", f"--spec={path}"]
    try:
        done = subprocess.run(command, cwd=directory, capture_output=True, text=True, timeout=seconds)
    except subprocess.TimeoutExpired:
        raise SuiteFailed(f"{name}: not done after {seconds:.0f} s") from None
    index = directory / "reports" / "index.json"
    if not index.exists():
        raise SuiteFailed(f"{name}: {done.stdout[-2000:]}{done.stderr[-2000:]}")
    found: dict[str, Cases] = json.loads(index.read_text())
    return next(iter(found.values()), {})
