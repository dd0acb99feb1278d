"""What the page keeps on the server: settings, and files like saved workflows (app/user_manager.py)."""

import posixpath
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class UserFile:
    """One file of the user; times are in seconds since the epoch."""

    path: str
    data: bytes
    modified: float
    created: float

    def info(self, base: str = "") -> dict[str, Any]:
        """As `full_info=true` shows it: the path from the folder ``base`` on, times in milliseconds."""
        return {
            "path": posixpath.relpath(self.path, base or "."),
            "size": len(self.data),
            "modified": int(self.modified * 1000),
            "created": int(self.created * 1000),
        }


class UserData:
    """The one user of a server without --multi-user; paths are as `normal_path` gives them."""

    def __init__(self) -> None:
        self.settings: dict[str, Any] = {}
        self.files: dict[str, UserFile] = {}

    def save(self, path: str, data: bytes, now: float) -> UserFile:
        before = self.files.get(path)
        self.files[path] = UserFile(path, data, now, before.created if before else now)
        return self.files[path]

    def move(self, source: str, target: str) -> UserFile:
        moved = self.files.pop(source)
        self.files[target] = UserFile(target, moved.data, moved.modified, moved.created)
        return self.files[target]

    def listing(self, folder: str, *, recurse: bool) -> list[UserFile] | None:
        """The files in ``folder``, sorted by path; None when there is no such folder."""
        prefix = f"{folder}/" if folder else ""
        inside = [self.files[path] for path in sorted(self.files) if path.startswith(prefix)]
        if folder and not inside:
            return None
        return [kept for kept in inside if recurse or posixpath.dirname(kept.path) == folder]

    def tree(self, folder: str) -> list[dict[str, Any]] | None:
        """What is under ``folder``, as /v2/userdata shows it, folders first; None: no such folder."""
        inside = {
            path: kept for path, kept in self.files.items() if not folder or path.startswith(folder + "/")
        }
        if folder and not inside:
            return None
        folders = {parent for path in inside for parent in _parents(path) if len(parent) > len(folder)}
        rows: list[dict[str, Any]] = [
            {"name": posixpath.basename(path), "path": path, "type": "directory"} for path in folders
        ]
        rows += [
            {
                "name": posixpath.basename(path),
                "path": path,
                "type": "file",
                "size": len(kept.data),
                "modified": kept.modified,
            }
            for path, kept in inside.items()
        ]
        return sorted(rows, key=lambda row: (row["type"] != "directory", str(row["name"]).lower()))


def normal_path(path: str) -> str | None:
    """``path`` within the user's folder, "" for the folder itself; None when it leads out of it."""
    normal = posixpath.normpath(path)
    if normal.startswith(("/", "../")) or normal == "..":
        return None
    return "" if normal == "." else normal


def _parents(path: str) -> list[str]:
    parts = path.split("/")[:-1]
    return ["/".join(parts[: depth + 1]) for depth in range(len(parts))]
