"""What a small request may cost: the calls that it makes the interpreter do, as `benchmarks.calls` counts.

Seconds depend on the machine, calls do not: the same code counts the same everywhere, to a fraction of one.
They are counted in a process of its own, on the reactor and with the configuration of ``comfyproxy run``.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]

MARGIN = 1.10
"""What other versions of Python and Twisted may add."""

BUDGETS = {"plain": 107.0, "console": 111.0, "comfyui": 120.0, "browser": 139.0, "strangers": 255.0}
"""Calls a request, in Python and C together, as they were counted when this was last changed. A change that
makes requests cheaper lowers them; one that makes them dearer raises them and says what that buys."""

SYSTEM_CALLS = 6
"""Wait, receive and send, in each direction. One more a request costs as much as ten calls in Python."""


@pytest.mark.timeout(60)
@pytest.mark.parametrize("scenario", list(BUDGETS))
def test_a_small_request_keeps_to_its_budget_of_calls(scenario: str) -> None:
    calls = count(scenario)
    found = calls["python"] + calls["c"]
    over = f"'{scenario}' takes {found:.1f} calls a request; its budget is {BUDGETS[scenario]:.0f}."
    assert found <= BUDGETS[scenario] * MARGIN, f"{over}\n{most(calls)}"
    assert calls["system"] <= SYSTEM_CALLS * 1.02, most(calls)


def count(scenario: str) -> Any:
    """The calls of one scenario, counted in a process of its own: the reactor of this one is another."""
    command = [sys.executable, "-m", "benchmarks.calls", scenario, "--json", "--top", "40"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=50)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def most(calls: Any) -> str:
    """The functions that are called most, for the message of a failure."""
    return "\n".join(f"{number:7.2f}  {name}" for name, number in calls["top"])
