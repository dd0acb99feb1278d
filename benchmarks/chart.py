"""Draws what was measured: bars by hand as SVG, or with matplotlib, where it is there, as PNG."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple
from xml.sax.saxutils import escape

from benchmarks.report import MICRO, MILLI, Results, medians
from benchmarks.works import WORKS

SHOWN = ("small", "download", "echo")
"""The works that the chart has, one panel each."""

OURS = "#0b7a75"
THEIRS = "#b8b8b8"
BAR = 16
GAP = 6
LABELS = 190
WIDTH = 720


class Panel(NamedTuple):
    """One work: its title and the cost of each peer, the cheapest first."""

    title: str
    costs: list[tuple[str, float]]


def write_chart(results: Results, path: Path) -> None:
    """Draw `SHOWN` of ``results`` to ``path``, whose suffix says how."""
    drawn = list(panels(results))
    if path.suffix == ".svg":
        path.write_text(svg(drawn))
        return
    try:
        from matplotlib import pyplot
    except ImportError:
        raise SystemExit("Only .svg can be drawn without matplotlib.") from None
    _, axes = pyplot.subplots(len(drawn), figsize=(9, 3 * len(drawn)), squeeze=False)
    for axis, panel in zip(axes[:, 0], drawn, strict=True):
        names = [name for name, _ in panel.costs]
        axis.barh(names, [cost for _, cost in panel.costs], color=[_colour(name) for name in names])
        axis.invert_yaxis()
        axis.set_title(panel.title, loc="left")
    pyplot.tight_layout()
    pyplot.savefig(path, dpi=120)


def panels(results: Results) -> Iterator[Panel]:
    """What is to be drawn of ``results``."""
    for work in WORKS:
        found: Mapping[str, Mapping[str, float]] = medians(results.get(work.name, {}))
        factor = MICRO if work.scale == "us" else MILLI
        costs = sorted(
            ((peer, one["cpu"] * factor) for peer, one in found.items() if "cpu" in one), key=_cost
        )
        if work.name in SHOWN and costs:
            unit = "µs" if work.scale == "us" else "ms"
            yield Panel(f"{work.title}: CPU {unit} per {work.unit}", costs)


def svg(drawn: list[Panel]) -> str:
    """The panels below each other, readable on light and on dark ground."""
    lines: list[str] = []
    y = 0
    for panel in drawn:
        y += 24
        lines.append(f'<text x="0" y="{y}" class="title">{escape(panel.title)}</text>')
        y += GAP
        most = max(cost for _, cost in panel.costs)
        for peer, cost in panel.costs:
            width = max(1, round((WIDTH - LABELS - 70) * cost / most))
            base = y + BAR - 4
            lines += [
                f'<text x="{LABELS - 8}" y="{base}" text-anchor="end">{escape(peer)}</text>',
                f'<rect x="{LABELS}" y="{y}" width="{width}" height="{BAR}" fill="{_colour(peer)}"/>',
                f'<text x="{LABELS + width + 6}" y="{base}">{cost:.3g}</text>',
            ]
            y += BAR + GAP
    style = "text{font:12px system-ui,sans-serif;fill:#333}.title{font-weight:600}"
    style += "@media(prefers-color-scheme:dark){text{fill:#ddd}}"
    body = "\n".join(lines)
    size = f'viewBox="0 0 {WIDTH} {y}" width="{WIDTH}" height="{y}"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size}>\n<style>{style}</style>\n{body}\n</svg>\n'


def _colour(peer: str) -> str:
    return OURS if peer.startswith(("comfyproxy", "RoundRobin")) else THEIRS


def _cost(entry: tuple[str, float]) -> float:
    return entry[1]
