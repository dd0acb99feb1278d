"""The large file that services serve and clients send."""

import hashlib
import random
from dataclasses import dataclass
from pathlib import Path

MIB = 2**20
LARGE = 64 * MIB


@dataclass(frozen=True)
class Content:
    """A file of 64 MiB in which a lost, doubled or swapped block changes the hash."""

    path: Path
    data: bytes
    sha256: str


def write_content(path: Path) -> Content:
    """Make the file."""
    data = random.Random(0).randbytes(LARGE)
    path.write_bytes(data)
    return Content(path, data, sha256(data))


def sha256(data: bytes) -> str:
    """The SHA-256 of some bytes as the services give it."""
    return hashlib.sha256(data).hexdigest()
