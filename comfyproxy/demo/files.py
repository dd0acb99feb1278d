"""The three folders of one server (input, output, temp), held in memory.

Names follow ComfyUI: uploads that meet other bytes are renamed `u (1).png`; outputs are counted per folder
and prefix, one above the highest number that is there (so that two servers give two pictures one name); a
name may say its folder as `x.png [output]`.
"""

import posixpath
import re
from dataclasses import dataclass

FOLDERS = ("input", "output", "temp")

_COUNTED = re.compile(r"(.*)_(\d+)_?\.[^.]*", re.DOTALL)
_ANNOTATED = re.compile(r"(.*) ?\[(input|output|temp)\]", re.DOTALL)


class OutsideFolder(ValueError):
    """A name or subfolder that leads out of its folder."""


@dataclass(frozen=True, slots=True)
class StoredFile:
    """One file; ``modified`` is in seconds since the epoch."""

    folder: str
    subfolder: str
    name: str
    data: bytes
    modified: float

    @property
    def path(self) -> str:
        return posixpath.join(self.subfolder, self.name)

    @property
    def etag(self) -> str:
        """aiohttp's entity tag: time of change and size, so it differs between two servers."""
        return f'"{int(self.modified * 1e9):x}-{len(self.data):x}"'


class Files:
    """What one server has on its (imagined) disk."""

    def __init__(self) -> None:
        self._files: dict[tuple[str, str], StoredFile] = {}

    def find(self, folder: str, subfolder: str, name: str) -> StoredFile | None:
        """The file of that place.

        Raises OutsideFolder when subfolder and name lead out of the folder.
        """
        return self._files.get((folder, _inside(posixpath.join(subfolder, name))))

    def annotated(self, name: str) -> StoredFile | None:
        """The file that a LoadImage input names: in `input` unless an annotation says otherwise."""
        plain, folder = split_annotation(name)
        try:
            return self.find(folder or "input", "", plain)
        except OutsideFolder:
            return None

    def save(self, folder: str, subfolder: str, name: str, data: bytes, now: float) -> StoredFile:
        """Keep ``data`` under exactly that name, over whatever was there.

        Raises OutsideFolder as `find` does.
        """
        path = _inside(posixpath.join(subfolder, name))
        stored = StoredFile(folder, posixpath.dirname(path), posixpath.basename(path), data, now)
        self._files[folder, path] = stored
        return stored

    def upload_name(self, folder: str, subfolder: str, name: str, data: bytes) -> str:
        """The name to keep an upload under: its own unless other bytes have it (server.py, image_upload)."""
        stem, suffix = posixpath.splitext(name)
        candidate, attempt = name, 0
        while (taken := self.find(folder, subfolder, candidate)) is not None and taken.data != data:
            attempt += 1
            candidate = f"{stem} ({attempt}){suffix}"
        return candidate

    def next_output(self, folder: str, prefix: str) -> tuple[str, str, int]:
        """Subfolder, name prefix and first free number for outputs (folder_paths.py, get_save_image_path).

        Raises OutsideFolder when the prefix leads out of the folder.
        """
        subfolder, name = posixpath.split(_inside(prefix))
        taken = [
            int(counted[2])
            for stored in self.listing(folder, subfolder)
            if (counted := _COUNTED.fullmatch(stored.name)) and counted[1] == name
        ]
        return subfolder, name, max(taken, default=0) + 1

    def listing(self, folder: str, subfolder: str = "") -> list[StoredFile]:
        """The files directly in one subfolder, oldest first."""
        return [
            stored
            for (where, _), stored in self._files.items()
            if where == folder and stored.subfolder == subfolder
        ]


def split_annotation(name: str) -> tuple[str, str | None]:
    """`x.png [output]` as (`x.png`, `output`), None without one (folder_paths.py, annotated_filepath)."""
    if found := _ANNOTATED.fullmatch(name):
        return found[1].removesuffix(" "), found[2]
    return name, None


def _inside(path: str) -> str:
    normal = posixpath.normpath(path)
    if normal.startswith(("/", "../")) or normal in ("..", "."):
        raise OutsideFolder(path)
    return normal
