"""Other people's test suite and other people's proxies: what holds without ours holds with it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from conformance.wstest.__main__ import DIRECT, OURS
from conformance.wstest.suite import why_missing

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.real


@pytest.mark.timeout(900, func_only=True)
def test_the_autobahn_suite_finds_no_case_worse_through_the_proxy(tmp_path: Path) -> None:
    if reason := why_missing():
        pytest.skip(reason)
    kept = tmp_path / "found.json"
    command = [sys.executable, "-m", "conformance.wstest", "--json", str(kept), "--seconds", "600"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=850)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(kept.read_text())
    assert {DIRECT, *OURS} < found.keys()
    assert all(len(found[name]) > 250 for name in (DIRECT, *OURS))


@pytest.mark.timeout(300, func_only=True)
def test_what_another_proxy_on_this_machine_refuses_is_refused_here() -> None:
    command = [sys.executable, "-m", "conformance.anchors"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stdout + done.stderr
