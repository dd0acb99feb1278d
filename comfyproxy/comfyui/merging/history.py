"""GET /history of the pool: what became of the prompts of any server, in the order in which they ended."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from comfyproxy.comfyui.merging.documents import integer, is_number, read, read_query, write, write_object
from comfyproxy.comfyui.merging.known import INTERRUPTED, Known, Status
from comfyproxy.comfyui.merging.numbering import EndNumbers
from comfyproxy.comfyui.merging.ownership import Sighting, believed
from comfyproxy.comfyui.merging.showing import PLAIN, Showing
from comfyproxy.comfyui.wire import Document
from comfyproxy.core.balancing.backend import Backend
from comfyproxy.core.balancing.operations import Reply

ENDINGS = frozenset(("execution_success", "execution_error", INTERRUPTED))
"""The events with which a prompt ends."""

_TARGET = b"/history"


@dataclass(frozen=True, slots=True)
class HistoryQuery:
    """``GET /history?max_items=&offset=``: the last so many, or as many from ``offset`` on (0: oldest)."""

    max_items: int | None = None
    offset: int = -1

    @classmethod
    def parse(cls, query: bytes) -> "HistoryQuery":
        """From the query of the request; `BadQuery` if it has something other than numbers."""
        parameters = read_query(query)
        offset = integer(parameters, "offset")
        return cls(integer(parameters, "max_items"), -1 if offset is None else offset)

    @property
    def target(self) -> bytes:
        """What to ask each server for: of each as much as may be in the pool's answer."""
        if self.max_items is None:
            return _TARGET
        if self.offset < 0:
            return b"%b?max_items=%d" % (_TARGET, max(0, self.max_items))
        return b"%b?max_items=%d&offset=0" % (_TARGET, self.offset + max(1, self.max_items))

    def cut(self, count: int) -> slice:
        """Which of ``count`` entries are asked for, as ComfyUI counts (``PromptQueue.get_history``)."""
        if self.max_items is None:
            return slice(max(0, self.offset), None)
        start = max(0, count - self.max_items if self.offset < 0 else self.offset)
        return slice(start, start + max(1, self.max_items))


@dataclass(frozen=True, slots=True)
class Ended:
    """One entry of a server's history."""

    backend: Backend
    prompt_id: str
    entry: Document

    @property
    def sighting(self) -> Sighting:
        """That this server has it."""
        return Sighting(self.prompt_id, self.backend, ended_status(self.entry))


def read_history(reply: Reply) -> list[Ended] | None:
    """The entries in an answer to ``GET /history``, oldest first; ``None`` if it is none."""
    document = read(reply)
    if not isinstance(document, dict):
        return None
    return [
        Ended(reply.backend, prompt_id, entry)
        for prompt_id, entry in document.items()
        if isinstance(entry, dict) and _is_row(entry.get("prompt")) and isinstance(entry.get("outputs"), dict)
    ]


def merge_history(
    replies: Sequence[Reply],
    query: HistoryQuery,
    known: Iterable[Known] = (),
    showing: Showing = PLAIN,
    numbers: EndNumbers | None = None,
) -> bytes:
    """The answer to ``GET /history``, made of those of the servers to ``query.target``.

    ``numbers`` is what earlier answers of the same pool had.
    """
    histories = {reply.backend: history for reply in replies if (history := read_history(reply)) is not None}
    records = {record.prompt_id: record for record in known}
    whose = believed((ended.sighting for history in histories.values() for ended in history), records)
    dated: list[tuple[float, str, Backend | None, Document]] = []
    for history in histories.values():
        latest = 0.0
        for ended in history:
            latest = max(latest, ending_time(ended.entry))
            if whose[ended.prompt_id] is ended.backend:
                entry = showing.entry(ended.entry, ended.backend)
                dated.append((latest, ended.prompt_id, ended.backend, entry))
    for record in records.values():
        if record.status.is_ended and record.prompt_id not in whose and record.is_missing(histories, 0.0):
            entry = showing.known_entry(record)
            dated.append((ending_time(entry) or float(record.create_time), record.prompt_id, None, entry))
    dated.sort(key=lambda item: item[0])
    if numbers is None or query.offset >= 0:
        numbers = EndNumbers()
    rows = [
        (prompt_id, _numbered(entry, numbers.number(prompt_id, ended, backend)))
        for ended, prompt_id, backend, entry in dated
    ]
    for server in (None, *histories):
        numbers.listed(
            server, max((ended for ended, _, backend, _ in dated if backend is server), default=0.0)
        )
    return write_object(rows[query.cut(len(rows))])


def _numbered(entry: Document, number: int) -> Document:
    row = entry["prompt"]
    return entry | {"prompt": [number, *row[1:]]}


def history_of(
    prompt_id: str,
    replies: Sequence[Reply],
    known: Mapping[str, Known],
    showing: Showing = PLAIN,
) -> bytes:
    """The answer to ``GET /history/{prompt_id}``: an empty object if it is in no history."""
    found = [
        ended for reply in replies for ended in read_history(reply) or () if ended.prompt_id == prompt_id
    ]
    record = known.get(prompt_id)
    whose = believed((ended.sighting for ended in found), known)
    for ended in found:
        if whose[prompt_id] is ended.backend:
            return write_object([(prompt_id, showing.entry(ended.entry, ended.backend))])
    if record is not None and record.status.is_ended:
        return write({prompt_id: showing.known_entry(record)}) or b"{}"
    return b"{}"


def messages_of(entry: Document) -> list[tuple[str, Document]]:
    """The events of an entry, type and data."""
    status = entry.get("status")
    messages = status.get("messages") if isinstance(status, dict) else None
    found = []
    for message in messages if isinstance(messages, list) else ():
        match message:
            case [str(kind), dict(data), *_]:
                found.append((kind, data))
    return found


def ended_status(entry: Document) -> Status:
    """What became of it."""
    status = entry.get("status")
    if not isinstance(status, dict) or status.get("status_str") != "error":
        return Status.COMPLETED
    was_interrupted = any(kind == INTERRUPTED for kind, _ in messages_of(entry))
    return Status.CANCELLED if was_interrupted else Status.FAILED


def ending_time(entry: Document) -> float:
    """When it ended, or at least began, in milliseconds since the epoch; 0 if nothing is said of it."""
    times = [
        float(time)
        for kind, data in messages_of(entry)
        if (kind in ENDINGS or kind == "execution_start") and is_number(time := data.get("timestamp"))
    ]
    return times[-1] if times else 0.0


def _is_row(value: Any) -> bool:
    match value:
        case [number, str(), dict(), dict(), list(), *_] if is_number(number):
            return True
    return False
