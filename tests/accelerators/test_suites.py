"""Other suites again, on the accelerators: what holds without them must hold with them.

Each runs in a process of its own, whose global reactor is the lean one.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.timeout(150),
    pytest.mark.skipif(not hasattr(os, "splice"), reason="this system has no splice"),
]

ROOT = Path(__file__).resolve().parents[2]

ON_THE_LEAN_REACTOR = """
import sys, pytest
from comfyproxy.proxy.reactor import install
install()
sys.exit(pytest.main(sys.argv[1:]))
"""

RULES = ["tests/proxy_rules", "-p", "tests.accelerators.plugin"]

INSIDE_THE_NETWORK = (
    "back_pressure",
    "too_much_is_refused",
    "read_ahead_is_bounded",
    "too_early_is_bounded",
    "that_waited_goes",
    "goes_out_as_the_client_takes_it",
    "waits_for_a_server_to_have_room",
    "before_the_request_is_complete",
    "however_it_arrives",
    "test_corpus",
    "invalid_request",
)
"""Tests that count octets on their way, or deliver each by itself: only a network in memory can."""


@pytest.mark.parametrize(
    "arguments",
    [
        # Of the corpus nothing is left out that is answered by a backend.
        pytest.param([*RULES, "--accelerators=eager", "-k", "daemon and not invalid_request"], id="eager"),
        # The bodies of the corpus are short and come with their heads.
        pytest.param([*RULES, "--accelerators=spliced", "-k", "daemon and not test_corpus"], id="spliced"),
        pytest.param(
            [*RULES, "--accelerators=loopback", "-k", " and not ".join(("daemon", *INSIDE_THE_NETWORK))],
            id="loopback",
        ),
        pytest.param(
            [
                "tests/accelerators",
                f"--ignore=tests/accelerators/{Path(__file__).name}",
                "tests/proxy/test_splice.py",
                "tests/proxy/test_transports.py",
                "tests/service/test_daemon.py",
                "tests/web/test_loopback.py",
            ],
            id="lean",
        ),
    ],
)
def test_a_suite_passes_with_accelerators(arguments: list[str]) -> None:
    command = [sys.executable, "-c", ON_THE_LEAN_REACTOR, "-q", "-p", "no:cacheprovider", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=140)
    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr[-2000:]
    assert "passed" in done.stdout
