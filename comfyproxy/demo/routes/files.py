"""Files of one server: uploads, and /view."""

import json
import mimetypes
from collections.abc import Iterator, Mapping
from typing import Any

from comfyproxy.demo.files import FOLDERS, Files, OutsideFolder, StoredFile, split_annotation
from comfyproxy.demo.machine import Machine
from comfyproxy.demo.multipart import Part, parse_form
from comfyproxy.demo.routing import Answer, Asked, Malformed, Route, file_answer, json_answer

# What a browser would run as part of the page when it opens it by itself (folder_paths.py,
# is_dangerous_content_type).
_ACTIVE = {
    "text/html",
    "application/xhtml+xml",
    "text/javascript",
    "application/javascript",
    "text/css",
    "text/xml",
    "application/xml",
    "image/svg+xml",
}


class FileRoutes:
    """Uploads into a folder, and every file on the way out."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine

    def routes(self) -> Iterator[Route]:
        yield Route("POST", "/upload/image", self.post_image)
        yield Route("POST", "/upload/mask", self.post_mask)
        yield Route("GET", "/view", self.get_view)
        yield Route("GET", "/view_metadata/{folder}", self.get_view_metadata)

    def post_image(self, asked: Asked) -> Answer:
        form = parse_form(asked.fields.get("content-type", ""), asked.body)
        return self._upload(form, keep=True)

    def post_mask(self, asked: Asked) -> Answer:
        """As an upload, of a picture that belongs to one that is already here (`original_ref`).

        ComfyUI gives the original the alpha channel of the upload; the simulation keeps the upload as it
        came. When the original is not here both keep nothing and still answer 200.
        """
        form = parse_form(asked.fields.get("content-type", ""), asked.body)
        try:
            reference = json.loads(form["original_ref"].data)
            original = self._referenced(reference)
        except (KeyError, TypeError, ValueError):
            raise Malformed("original_ref names no file") from None
        return self._upload(form, keep=original is not None)

    def get_view(self, asked: Asked) -> Answer:
        """A file by (type, subfolder, filename): 400 for a bad type or name, 403 outside the folder.

        `preview=` and `channel=` ask for another encoding; the simulation has only the one that is stored,
        and answers it, as ComfyUI does for these, without validators.
        """
        if "filename" not in asked.query:
            return Answer(404)
        name, folder = split_annotation(asked.query["filename"])
        folder = folder or asked.query.get("type", "output")
        if not name or name.startswith("/") or ".." in name or folder not in FOLDERS:
            return Answer(400)
        try:
            stored = self._machine.files.find(
                folder, asked.query.get("subfolder", ""), name.rpartition("/")[2]
            )
        except OutsideFolder:
            return Answer(403)
        if stored is None:
            return Answer(404)
        fields = _view_fields(stored.name, asked.fields.get("sec-fetch-dest", ""))
        if "preview" in asked.query or asked.query.get("channel", "rgba") != "rgba":
            return Answer(200, stored.data, fields)
        return file_answer(asked, stored, fields)

    def get_view_metadata(self, asked: Asked) -> Answer:
        """The metadata of a model file; the simulated models have none."""
        return Answer(404)

    def _upload(self, form: Mapping[str, Part], *, keep: bool) -> Answer:
        image = form.get("image")
        if image is None or not image.filename:
            return Answer(400)
        files, folder, subfolder = (
            self._machine.files,
            _text(form, "type") or "input",
            _text(form, "subfolder"),
        )
        if folder not in FOLDERS:
            raise Malformed(f"there is no folder {folder!r}")
        name = image.filename
        try:
            if _text(form, "overwrite") not in ("true", "1"):
                name = files.upload_name(folder, subfolder, name, image.data)
            if keep and not _same(files, folder, subfolder, name, image.data):
                files.save(folder, subfolder, name, image.data, self._machine.now())
        except OutsideFolder:
            return Answer(400)
        return json_answer({"name": name, "subfolder": subfolder, "type": folder})

    def _referenced(self, reference: Mapping[str, Any]) -> StoredFile | None:
        name, folder = split_annotation(reference["filename"])
        folder = folder or reference.get("type", "output")
        return self._machine.files.find(folder, reference.get("subfolder", ""), name)


def _same(files: Files, folder: str, subfolder: str, name: str, data: bytes) -> bool:
    stored = files.find(folder, subfolder, name)
    return stored is not None and stored.data == data


def _text(form: Mapping[str, Part], name: str) -> str:
    return form[name].data.decode("utf-8", "replace") if name in form else ""


def _view_fields(name: str, destination: str) -> dict[str, str]:
    quoted = name.replace("\\", "\\\\").replace('"', '\\"')
    kind = mimetypes.guess_type(name)[0] or "application/octet-stream"
    fields = {
        "X-Content-Type-Options": "nosniff",
        "Content-Type": kind,
        "Content-Disposition": f'filename="{quoted}"',
    }
    if kind not in _ACTIVE:
        return fields
    fields |= {"Vary": "Sec-Fetch-Dest", "Cache-Control": "no-store"}
    if kind == "image/svg+xml" and destination == "image":
        return fields
    download = {
        "Content-Type": "application/octet-stream",
        "Content-Disposition": f'attachment; filename="{quoted}"',
    }
    return fields | download
