"""Whether a failed attempt may be made again, on another backend or on a fresh connection."""

from comfyproxy.core.http1 import RequestHead
from comfyproxy.errors import BackendError, BackendLost


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
