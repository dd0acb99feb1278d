"""Policies: in which order the backends of a pool are tried.

`policy` says what a policy is, `balance` which there are by name; each other module is one of them, or what
it stands on: `round_robin` (on `smooth`), `least_conn`, `random_two` (on `lots`), `first` and `rendezvous`
(with `keys`).
"""

from comfyproxy.core.balancing.selection.balance import Balance, make_policy, parse_balance
from comfyproxy.core.balancing.selection.policy import Policy, Selection
from comfyproxy.core.balancing.selection.round_robin import RoundRobin

__all__ = ["Balance", "Policy", "RoundRobin", "Selection", "make_policy", "parse_balance"]
