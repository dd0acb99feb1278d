"""Puts measured figures into a page of the documentation, between two marks."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.report import MICRO, MILLI, Results, medians, standing
from benchmarks.works import WORKS

BEGIN = "<!-- figures: written by python -m benchmarks --page -->"
END = "<!-- end of figures -->"


def write_page(path: Path, about: Sequence[str], results: Results) -> None:
    """Replace what stands between `BEGIN` and `END` in ``path``; raises `ValueError` without these marks."""
    before, begin, rest = path.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{path} has no place for figures: {BEGIN} ... {END}")
    path.write_text("\n".join([before + begin, *markdown(about, results), end + after]))


def markdown(about: Sequence[str], results: Results) -> Iterator[str]:
    """The figures: one row for each proxy, one column for each work, then how comfyproxy stands."""
    yield f"\n{'. '.join(about[:2])}.\n"
    works = [work for work in WORKS if results.get(work.name)]
    found = {work.name: medians(results[work.name]) for work in works}
    peers = list(dict.fromkeys(peer for work in works for peer in found[work.name]))
    units = [f"{work.name}, {'µs' if work.scale == 'us' else 'ms'}" for work in works]
    yield "| | " + " | ".join(units) + " |"
    yield "|---" * (len(works) + 1) + "|"
    for peer in peers:
        cells = [
            _cell(found[work.name].get(peer, {}).get("cpu"), MICRO if work.scale == "us" else MILLI)
            for work in works
        ]
        if any(cells):
            yield f"| {peer} | " + " | ".join(cells) + " |"
    yield "\n```"
    yield from (line.strip("\n") for line in standing(results))
    yield "```\n"


def _cell(seconds: float | None, factor: float) -> str:
    if seconds is None:
        return ""
    value = seconds * factor
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"
