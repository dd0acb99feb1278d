"""The difference between two lists of servers."""

from hypothesis import given
from hypothesis import strategies as st

from comfyproxy.core.balancing.changes import diff
from comfyproxy.core.configuration.addresses import Address

lists = st.lists(
    st.builds(
        Address,
        scheme=st.sampled_from(["http", "https"]),
        host=st.sampled_from(["a", "b", "c"]),
        port=st.integers(1, 3),
        weight=st.integers(1, 2),
        max_conns=st.integers(0, 1),
        origin=st.sampled_from(["--url", "servers.txt:1"]),
    ),
    max_size=8,
)


def address(host: str, weight: int = 1, origin: str = "") -> Address:
    return Address("http", host, 8188, weight=weight, origin=origin)


def test_what_came_went_and_changed_is_told_in_order() -> None:
    a, b, c = address("a"), address("b"), address("c")
    changes = diff([a, b, c], [address("d"), address("c", weight=2), a, address("e")])
    assert [one.host for one in changes.wanted] == ["d", "c", "a", "e"]
    assert [one.host for one in changes.added] == ["d", "e"]
    assert changes.removed == (b,)
    assert changes.altered == (address("c", weight=2),)
    assert changes
    assert list(changes.lines()) == [
        "+ http://d:8188",
        "+ http://e:8188",
        "- http://b:8188",
        "~ http://c:8188",
    ]
    assert changes.summary() == "2 added, 1 removed, 1 altered, 4 servers now"


def test_same_servers_named_elsewhere_are_no_change() -> None:
    changes = diff([address("a", origin="--url")], [address("a", origin="servers.txt:3")])
    assert not changes
    assert changes.summary() == "no change, 1 server"
    assert changes.wanted[0].origin == "servers.txt:3"


def test_another_order_is_wanted_though_no_server_changes() -> None:
    a, b = address("a"), address("b")
    changes = diff([a, b], [b, a])
    assert not changes
    assert changes.wanted == (b, a)


def test_first_of_doubles_counts() -> None:
    changes = diff([], [address("a", weight=2), address("b"), address("a", weight=3)])
    assert changes.wanted == changes.added == (address("a", weight=2), address("b"))


@given(old=lists, new=lists)
def test_difference_accounts_for_every_server(old: list[Address], new: list[Address]) -> None:
    changes = diff(old, new)
    before, after = {one.key for one in old}, {one.key for one in new}
    assert {one.key for one in changes.wanted} == after
    assert len(changes.wanted) == len(after)
    assert {one.key for one in changes.added} == after - before
    assert {one.key for one in changes.removed} == before - after
    assert {one.key for one in changes.altered} <= before & after
    assert not diff(changes.wanted, new)
