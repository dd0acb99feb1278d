"""``comfyproxy demo``, as a process."""

import re
import subprocess
import sys
from pathlib import Path


def test_a_first_prompt_goes_through_the_proxy(tmp_path: Path) -> None:
    # Neither of these is meant for the demo.
    (tmp_path / ".env").write_text("DEV_SERVER_COMFYUI_URL=http://nowhere.invalid:1\n")
    (tmp_path / "tap.conf").write_text('url = "http://nowhere.invalid:1"\n')
    demo = subprocess.run(
        [sys.executable, "-m", "comfyproxy.cli", "demo", "--servers", "2", "--port", "0", "--once"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=45,
    )
    assert demo.returncode == 0, demo.stderr
    assert "simulated ComfyUI 1: gpu-2 at http://127.0.0.1:" in demo.stdout
    assert re.search(r"demo_00001_\.png, \d+ octets, made by gpu-[12]", demo.stdout)
    assert demo.stderr == ""


def test_without_the_port_it_says_so(tmp_path: Path) -> None:
    demo = subprocess.run(
        [sys.executable, "-m", "comfyproxy.cli", "demo", "--port", "1", "--once", "--servers", "1"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=45,
    )
    if "comfyproxy before them at" in demo.stdout:
        return  # whoever runs the tests may listen on port 1
    assert demo.returncode == 1
    assert "The demo cannot run" in demo.stdout
