"""The system's curl."""

import subprocess


def curl(*arguments: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    """Run curl to a successful end (an exchange, whatever its status)."""
    command = ["curl", "--silent", "--show-error", "--max-time", "30", *arguments]
    done = subprocess.run(command, input=stdin, capture_output=True, timeout=40)
    assert done.returncode == 0, f"{' '.join(command)}\nended with {done.returncode}\n{done.stderr.decode()}"
    return done
