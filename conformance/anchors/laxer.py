"""Where comfyproxy passes what one of the others refuses, each with the reason.

A case that is not here and where ours is laxer fails the comparison; so does one that is here and is not.
"""

from collections.abc import Iterable
from fnmatch import fnmatchcase

_OLD = "HTTP/1.0 is still spoken by scripts and probes; Envoy takes it when it is told to"
_TARGET = (
    "RFC 9112 section 3.2.2: a server must take the absolute form, and the target's authority "
    "counts; HAProxy refuses it where `Host` says another"
)

EXPLAINED = {
    "requests/valid/00[234]-*method*": (
        "RFC 9110 section 9.1: a method is any token, and which there are is the server's to say"
    ),
    "requests/valid/005-one-empty-line-before": (
        "RFC 9112 section 2.2: one empty line before a request is to be ignored; old clients send "
        "it behind a POST"
    ),
    "requests/valid/*http-1.0*": _OLD,
    "requests/valid/008-http-1.9-is-treated-as-1.1": (
        "RFC 9110 section 2.5: a higher minor version is treated as the highest that is known; the "
        "server is told HTTP/1.1"
    ),
    "requests/valid/042-content-length-with-blanks": (
        "RFC 9110 section 5.5: a tab is a blank too; the field passes as it is, and h11 and llhttp "
        "read it alike"
    ),
    "requests/valid/061-transfer-encoding-with-blanks": (
        "RFC 9110 section 5.5: a tab is a blank too; the field is written anew"
    ),
    "requests/valid/078-trailers-as-long-as-may-be": ("a limit: ours is 8 KiB, Go's is 4 KiB"),
    "requests/valid/095-host-empty": (
        "RFC 9110 section 7.2: a `Host` without a value is what a target without an authority has"
    ),
    "requests/valid/09[6-9]-absolute-form*": _TARGET,
    "requests/valid/10[23]-options-absolute-form*": _TARGET,
    "requests/valid/101-asterisk-form": (
        "RFC 9112 section 3.2.4: `OPTIONS *` asks the server, and it is passed to the server"
    ),
    "requests/valid/107-every-mark-in-the-target": (
        "a `%` that encodes nothing passes as it came: nothing is decoded here, and the server sees"
        " what the client sent"
    ),
    "requests/valid/144-connection-close-beats-keep-alive": _OLD,
    "requests/valid/146-connection-names-end-to-end-fields": (
        "what may not be named away is not removed, so naming it does nothing"
    ),
    "responses/valid/*-204-*": (
        "RFC 9112 section 6.3: a 204 has no body whatever it says; neither length nor coding passes, and"
        " what follows ends the connection"
    ),
    "responses/valid/050-100": (
        "RFC 9110 section 15.2: a 1xx that nobody asked for is to be expected; the final answer "
        "behind it counts"
    ),
}
"""Cases as ``folder/name``; ``*`` stands for anything."""


def reason(case: str) -> str | None:
    """Why a case is passed though others refuse it; ``None`` if nobody has said."""
    return next((text for pattern, text in EXPLAINED.items() if fnmatchcase(case, pattern)), None)


def unexplained(cases: Iterable[str]) -> list[str]:
    """Those without a reason."""
    return [case for case in cases if reason(case) is None]


def outlived(cases: Iterable[str]) -> list[str]:
    """The patterns that none of the cases needs."""
    needed = set(cases)
    return [pattern for pattern in EXPLAINED if not any(fnmatchcase(case, pattern) for case in needed)]
