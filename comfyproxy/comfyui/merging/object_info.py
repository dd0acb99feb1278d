"""GET /object_info of the pool: every node class that some server has, with the choices of all of them.

One server's answer has 1.5 MB and more, and those of a pool are mostly the same. So the text of each class is
kept once, and only classes of which servers say different things are read and put together.
"""

import json
import re
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from hashlib import blake2b
from typing import Any

from comfyproxy.comfyui.merging.documents import write
from comfyproxy.comfyui.wire import Document

Classes = Mapping[str, bytes]
"""The node classes of a server in its order, each with its description as JSON."""

_BRACE = re.compile(r"[ \t\r\n]*\{[ \t\r\n]*")
_COLON = re.compile(r"[ \t\r\n]*:[ \t\r\n]*")
_END = re.compile(r"\}[ \t\r\n]*\Z")
_COMMA = re.compile(r"[ \t\r\n]*(?:,[ \t\r\n]*(?!\})|(?=\}))")


def read_classes(body: bytes, texts: dict[bytes, bytes], outputs: set[str]) -> Classes:
    """The classes in an answer to ``GET /object_info``.

    ``texts`` has the descriptions that are kept already and gets the others, ``outputs`` the names of classes
    that make outputs. Raises ValueError if it is no object.
    """
    classes = {}
    try:
        for name, value, text in _members(body.decode("utf-8-sig")):
            if isinstance(value, dict):
                if value.get("output_node") is True:
                    outputs.add(name)
                written = text.encode() if text is not None else write(value) or b"{}"
                classes[name] = texts.setdefault(written, written)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    return classes


class ObjectInfo:
    """What the servers of a pool can run together."""

    def __init__(self) -> None:
        self._texts: dict[bytes, bytes] = {}
        self._joined: dict[tuple[bytes, ...], bytes] = {}
        self._classes: dict[bytes, Classes] = {}
        self._outputs: set[str] = set()

    def is_output(self, class_type: str) -> bool:
        """Whether nodes of that class make outputs: some server said so."""
        return class_type in self._outputs

    def read(self, body: bytes) -> Classes:
        """The classes of one server, in little memory; ValueError if there are none in ``body``."""
        digest = blake2b(body, digest_size=16).digest()
        found = self._classes.get(digest)
        if found is None:
            found = self._classes[digest] = read_classes(body, self._texts, self._outputs)
        return found

    def merge(self, servers: Sequence[Classes]) -> Classes:
        """The classes of all, those of the first server first, in its order."""
        versions: dict[str, list[bytes]] = {}
        for classes in servers:
            for name, text in classes.items():
                found = versions.setdefault(name, [])
                if not any(one is text for one in found):
                    found.append(text)
        joined = {}
        merged = {}
        for name, texts in versions.items():
            if len(texts) == 1:
                merged[name] = texts[0]
            else:
                key = tuple(texts)
                merged[name] = joined[key] = self._joined.get(key) or _join(texts)
        self._joined = joined
        self._texts = {text: text for classes in servers for text in classes.values()}
        current = {id(classes) for classes in servers}
        self._classes = {digest: one for digest, one in self._classes.items() if id(one) in current}
        return merged


def write_classes(classes: Classes) -> bytes:
    """The answer to ``GET /object_info``."""
    return b"{%b}" % b", ".join(
        b"%b: %b" % (json.dumps(name).encode(), text) for name, text in classes.items()
    )


def _join(texts: Sequence[bytes]) -> bytes:
    """The description of a class that servers describe differently: the first's, with all their choices."""
    first, *others = (json.loads(text) for text in texts)
    for group, inputs in _objects(first.get("input")):
        theirs = [_object(_object(other.get("input")).get(group)) for other in others]
        for name, spec in inputs.items():
            inputs[name] = _with_choices(spec, [inputs_of.get(name) for inputs_of in theirs])
    outputs = first.get("output")
    for index, mine in enumerate(outputs) if isinstance(outputs, list) else ():
        if isinstance(mine, list):
            # The page connects it with an input that has the same list, so both are joined alike.
            outputs[index] = _union(mine, [_item(other.get("output"), index) for other in others])
    return write(first) or texts[0]


def _with_choices(spec: Any, others: Iterable[Any]) -> Any:
    """An input with the choices that other servers have for it as well."""
    choices = _choices(spec)
    if choices is None:
        return spec
    union = _union(choices, map(_choices, others))
    if isinstance(spec[0], list):
        return [union, *spec[1:]]
    return [spec[0], spec[1] | {"options": union}, *spec[2:]]


def _choices(spec: Any) -> list[Any] | None:
    """What an input may be if it is a choice: ``[["a"], {}]``, or ``["COMBO", {"options": ["a"]}]``."""
    match spec:
        case [list(choices), *_] | [str(), {"options": list(choices)}, *_]:
            return choices
    return None


def _union(mine: list[Any], others: Iterable[Any]) -> list[Any]:
    """All of ``mine``, then what is new in those of ``others`` that are lists."""
    union = list(mine)
    seen = {_identity(choice) for choice in mine}
    for other in others:
        for choice in other if isinstance(other, list) else ():
            identity = _identity(choice)
            if identity not in seen:
                seen.add(identity)
                union.append(choice)
    return union


def _identity(choice: Any) -> Hashable:
    """What makes it the same choice: itself, or its key where each choice has inputs of its own."""
    if isinstance(choice, dict) and "key" in choice:
        choice = choice["key"]
    return choice if isinstance(choice, str) else (json.dumps(choice, sort_keys=True),)


def _item(value: Any, index: int) -> Any:
    return value[index] if isinstance(value, list) and index < len(value) else None


def _objects(value: Any) -> Iterator[tuple[str, Document]]:
    return ((name, member) for name, member in _object(value).items() if isinstance(member, dict))


def _object(value: Any) -> Document:
    return value if isinstance(value, dict) else {}


def _members(text: str) -> Iterator[tuple[str, Any, str | None]]:
    """The members of a JSON object: name, value, and its text, unless that is not JSON (``NaN``)."""
    strange: list[str] = []
    decoder = json.JSONDecoder(parse_constant=strange.append)
    at = _after(_BRACE, text, 0)
    while not text.startswith("}", at):
        name, at = decoder.raw_decode(text, at)
        start = _after(_COLON, text, at)
        value, end = decoder.raw_decode(text, start)
        if not isinstance(name, str):
            raise ValueError("no name")
        yield name, value, None if strange else text[start:end]
        strange.clear()
        at = _after(_COMMA, text, end)
    _after(_END, text, at)


def _after(pattern: re.Pattern[str], text: str, at: int) -> int:
    match = pattern.match(text, at)
    if match is None:
        raise ValueError("no JSON")
    return match.end()
