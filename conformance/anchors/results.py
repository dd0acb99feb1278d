"""What everybody made of everything."""

from collections import defaultdict
from collections.abc import Iterator
from typing import Any

from conformance.anchors.rules import RULES
from conformance.anchors.verdicts import is_refused
from conformance.corpora import REQUESTS, RESPONSES, cases

OURS = "comfyproxy --app http"


class Results:
    """``verdicts`` by case (``folder/name``) and peer, ``rules`` by rule and peer, ``peers`` and versions."""

    def __init__(self, peers: list[tuple[str, str]]) -> None:
        self.peers = peers
        self.verdicts: dict[str, dict[str, str]] = defaultdict(dict)
        self.rules: dict[str, dict[str, str]] = defaultdict(dict)

    def to_json(self) -> dict[str, Any]:
        """As ``--json`` keeps it."""
        return {"peers": self.peers, "verdicts": self.verdicts, "rules": self.rules}

    @classmethod
    def from_json(cls, kept: dict[str, Any]) -> "Results":
        """What `to_json` made."""
        results = cls([(name, description) for name, description in kept["peers"]])
        results.verdicts.update(kept["verdicts"])
        results.rules.update(kept["rules"])
        return results

    @property
    def is_whole(self) -> bool:
        """Whether every case was tried with more than comfyproxy."""
        return len(self.peers) > 5 and len(self.verdicts) == len(list(cases(*REQUESTS, *RESPONSES)))

    def refusals(self, peer: str) -> tuple[int, int]:
        """How many of the invalid messages a peer refuses, and how many there are."""
        found = [one[peer] for case, one in self.verdicts.items() if "/invalid/" in case and peer in one]
        return sum(map(is_refused, found)), len(found)

    def laxer(self) -> dict[str, list[str]]:
        """The cases that comfyproxy passes and others refuse, with those others."""
        found = {}
        for case, one in self.verdicts.items():
            if OURS in one and not is_refused(one[OURS]):
                others = [peer for peer in one if is_refused(one[peer])]
                if others:
                    found[case] = others
        return found

    def broken_rules(self) -> Iterator[tuple[str, str, str]]:
        """The rules that comfyproxy breaks: name, what it does, what it should do."""
        for rule in RULES:
            found = self.rules.get(rule.name, {}).get(OURS)
            if found is not None and found != rule.wanted:
                yield rule.name, found, rule.wanted
