"""What a trial comes to, in a word or two."""

from conformance.anchors.trials import Result
from conformance.corpora import Case

PASSED = "passed"
GATEWAY = (500, 502, 503, 504)
"""What a proxy says of a server's answer that it does not pass."""


def verdict(case: Case, result: Result) -> str:
    """`PASSED`; or the status that the client was told, ``cut``, ``closed`` or ``waits``."""
    return of_request(result) if case.is_request else of_answer(case, result)


def is_refused(verdict: str) -> bool:
    """Whether the message did not pass."""
    return not verdict.startswith(PASSED)


def of_request(result: Result) -> str:
    """What became of a request: it passed if the server got one that is whole, however it was changed.

    Whether a server gets the beginning of one that is refused is a matter of moments, so that does not count.
    """
    if result.arrived is not None:
        return PASSED
    if result.final is not None:
        return str(result.final.status)
    return "closed" if result.closed else "waits"


def of_answer(case: Case, result: Result) -> str:
    """What became of an answer: it passed if the client got it whole; without its end it was ``cut``."""
    final = result.final
    if final is None:
        return "closed" if result.closed else "waits"
    if final.status in GATEWAY and b" %d" % final.status not in case.raw.partition(b"\r\n")[0]:
        return str(final.status)
    return PASSED if final.complete else "cut"
