"""What the page keeps for its user (there is one, as without --multi-user): settings and files."""

import posixpath
import re
import uuid
from collections.abc import Iterator
from urllib.parse import unquote

from comfyproxy.demo.files import StoredFile
from comfyproxy.demo.machine import Machine
from comfyproxy.demo.routing import Answer, Asked, Route, file_answer, json_answer, text_answer
from comfyproxy.demo.userdata import UserFile, normal_path


class UserRoutes:
    """Settings, users, and files whose path is one encoded segment of the URL."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._user = machine.user

    def routes(self) -> Iterator[Route]:
        yield Route("GET", "/settings", lambda asked: json_answer(self._user.settings))
        yield Route("POST", "/settings", self.post_settings)
        yield Route(
            "GET", "/settings/{id}", lambda asked: json_answer(self._user.settings.get(asked.found["id"]))
        )
        yield Route("POST", "/settings/{id}", self.post_setting)
        yield Route("GET", "/users", lambda asked: json_answer({"storage": "server", "migrated": True}))
        yield Route("POST", "/users", self.post_user)
        yield Route("GET", "/userdata", self.get_listing)
        yield Route("GET", "/v2/userdata", self.get_tree)
        yield Route("GET", "/userdata/{file}", self.get_file)
        yield Route("POST", "/userdata/{file}", self.post_file)
        yield Route("DELETE", "/userdata/{file}", self.delete_file)
        yield Route("POST", "/userdata/{file}/move/{target}", self.post_move)

    def post_settings(self, asked: Asked) -> Answer:
        self._user.settings |= asked.json_object()
        return Answer()

    def post_setting(self, asked: Asked) -> Answer:
        self._user.settings[asked.found["id"]] = asked.json()
        return Answer()

    def post_user(self, asked: Asked) -> Answer:
        name = str(asked.json_object().get("username", "")).strip()
        if not name:
            return json_answer({"error": "username not provided"}, 400)
        if name in self._machine.user_names.values():
            return json_answer({"error": "Duplicate username."}, 400)
        user_id = f"{re.sub('[^a-zA-Z0-9-_]+', '-', name)}_{uuid.uuid4()}"
        self._machine.user_names[user_id] = name
        return json_answer(user_id)

    def get_listing(self, asked: Asked) -> Answer:
        wanted = asked.query.get("dir", "")
        if not wanted:
            return text_answer("Directory not provided", 400)
        folder = normal_path(wanted)
        if folder is None:
            return text_answer("Invalid directory", 403)
        found = self._user.listing(folder, recurse=_is_true(asked, "recurse"))
        if found is None:
            return text_answer("Directory not found", 404)
        if _is_true(asked, "full_info"):
            return json_answer([kept.info(folder) for kept in found])
        paths = [posixpath.relpath(kept.path, folder or ".") for kept in found]
        if _is_true(asked, "split"):
            return json_answer([[path, *path.split("/")] for path in paths])
        return json_answer(paths)

    def get_tree(self, asked: Asked) -> Answer:
        folder = normal_path(unquote(asked.query.get("path", "")))
        if folder is None:
            return text_answer("Invalid path requested", 400)
        if folder in self._user.files:
            return text_answer("Requested path is not a directory", 400)
        rows = self._user.tree(folder)
        return text_answer("Requested path not found", 404) if rows is None else json_answer(rows)

    def get_file(self, asked: Asked) -> Answer:
        found = self._existing(asked)
        if isinstance(found, Answer):
            return found
        fields = {
            "Content-Type": "application/octet-stream",
            "X-Content-Type-Options": "nosniff",
            "Content-Disposition": "attachment",
        }
        if found.path == "user.css":
            fields |= {"Content-Type": "text/css", "Content-Disposition": "inline"}
        elif found.path.endswith(".json"):
            fields["Content-Type"] = "application/json"
        return file_answer(asked, StoredFile("user", "", found.path, found.data, found.modified), fields)

    def post_file(self, asked: Asked) -> Answer:
        path = _path(asked, "file")
        if not path:
            return Answer(403)
        if path in self._user.files and asked.query.get("overwrite") == "false":
            return text_answer("File already exists", 409)
        return _saved(asked, self._user.save(path, asked.body, self._machine.now()))

    def delete_file(self, asked: Asked) -> Answer:
        found = self._existing(asked)
        if isinstance(found, Answer):
            return found
        del self._user.files[found.path]
        return Answer(204)

    def post_move(self, asked: Asked) -> Answer:
        found = self._existing(asked)
        if isinstance(found, Answer):
            return found
        target = _path(asked, "target")
        if not target:
            return Answer(403)
        if target in self._user.files and asked.query.get("overwrite") == "false":
            return text_answer("File already exists", 409)
        return _saved(asked, self._user.move(found.path, target))

    def _existing(self, asked: Asked) -> UserFile | Answer:
        path = _path(asked, "file")
        if not path:
            return Answer(403)
        return self._user.files.get(path) or Answer(404)


def _path(asked: Asked, name: str) -> str | None:
    """The file that a segment names; what is still encoded after the URL's decoding is decoded once more."""
    return normal_path(unquote(asked.found[name]))


def _is_true(asked: Asked, name: str) -> bool:
    return asked.query.get(name, "").lower() == "true"


def _saved(asked: Asked, kept: UserFile) -> Answer:
    return json_answer(kept.info() if _is_true(asked, "full_info") else kept.path)
