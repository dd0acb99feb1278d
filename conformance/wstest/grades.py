"""What wstest made of its cases, and whether a proxy made any of them worse."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

Cases = Mapping[str, Mapping[str, object]]
"""Of one server: case to what `index.json` of wstest says of it."""

GRADES = (
    "OK",
    "INFORMATIONAL",
    "NON-STRICT",
    "UNIMPLEMENTED",
    "UNCLEAN",
    "WRONG CODE",
    "FAILED BY CLIENT",
    "FAILED",
)
"""From the best to the worst; what is not here is worse than all."""

GROUPS = {
    1: "framing",
    2: "pings and pongs",
    3: "reserved bits",
    4: "opcodes",
    5: "fragments",
    6: "UTF-8",
    7: "close",
    9: "limits and performance",
    10: "auto-fragmentation",
    12: "compression, sizes",
    13: "compression, parameters",
}


def rank(grade: object) -> int:
    """How far from the best."""
    return GRADES.index(grade) if grade in GRADES else len(GRADES)


def worse(proxied: Cases, direct: Cases) -> Iterator[str]:
    """The cases that end worse through the proxy, each with what it was and is; missing ones too."""
    for case, without in sorted(direct.items(), key=lambda one: order(one[0])):
        through = proxied.get(case)
        if through is None:
            yield f"{case}: not run"
            continue
        for key in ("behavior", "behaviorClose"):
            if rank(through[key]) > rank(without[key]):
                yield f"{case}: {key} {without[key]} -> {through[key]}"


def order(case: str) -> tuple[int, ...]:
    """1.2 before 1.10."""
    return tuple(int(part) for part in case.split("."))


def table(servers: Mapping[str, Cases]) -> Iterator[str]:
    """One row for each group of cases, one column for each server: how many have which grade."""
    names = list(servers)
    width = max(20, *(len(name) + 2 for name in names))
    yield " " * 28 + "".join(f"{name:>{width}}" for name in names)
    groups = sorted({order(case)[0] for cases in servers.values() for case in cases})
    for group in groups:
        cells = (
            _cell([one for case, one in servers[name].items() if order(case)[0] == group]) for name in names
        )
        title = f"{group:>2} {GROUPS.get(group, '')}"
        yield f"{title:28}" + "".join(f"{cell:>{width}}" for cell in cells)
    closes = (_closes(list(servers[name].values())) for name in names)
    yield f"{'   closing handshake':28}" + "".join(f"{cell:>{width}}" for cell in closes)


def _cell(cases: Sequence[Mapping[str, object]]) -> str:
    return _counts(Counter(str(case["behavior"]) for case in cases))


def _closes(cases: Sequence[Mapping[str, object]]) -> str:
    return _counts(Counter(str(case["behaviorClose"]) for case in cases))


SHORT = {"INFORMATIONAL": "info", "UNIMPLEMENTED": "none", "NON-STRICT": "non-strict"}


def _counts(counts: Counter[str]) -> str:
    best = sorted(counts, key=rank)
    return ", ".join(f"{counts[grade]} {SHORT.get(grade, grade)}" for grade in best)
