"""Whether a failed attempt may be made again, on another backend or on a fresh connection."""

from comfyproxy.core.http1 import RequestHead
from comfyproxy.errors import BackendError, BackendLost, BackendTimeout


def may_try_again(head: RequestHead, error: BackendError, *, answered: bool, body_at_hand: bool) -> bool:
    """Whether the request of ``head`` may be sent once more after ``error``.

    ``answered`` says that octets of an answer had come, ``body_at_hand`` that the whole body, as far as
    it was sent, can be sent again. A request that cannot have been acted upon is always repeated, one
    that may have been only if it is idempotent (RFC 9110 section 9.2.2). A backend that is silent for too
    long is not given up for another: the work would be done twice.
    """
    if answered or not body_at_hand:
        return False
    if not error.request_was_sent:
        return True
    return isinstance(error, BackendLost) and head.is_idempotent


def explain(error: BackendError, pool: str, waited: float, *, only_one: bool) -> tuple[int, str]:
    """The status and sentence for a client whose request came to nothing because of ``error``.

    ``waited`` is the timeout in seconds that a silent backend exceeded, ``only_one`` says that no other
    backend would have done.
    """
    if isinstance(error, BackendTimeout):
        return 504, f"The server did not answer within {waited:g} seconds."
    if error.request_was_sent:
        return error.status, "The server failed before it answered."
    if only_one:
        return 503, "The server that this belongs to cannot be reached."
    return 503, f"No server of the pool '{pool}' could be reached."
