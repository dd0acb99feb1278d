"""Several servers at once, as one page sees them: as if one server had run one prompt after another."""

from dataclasses import dataclass

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.comfyui.fanin.page import Message, Page, Recording
from tests.comfyui.fanin.rig import SessionRig

RECORDING = Recording("page")
KINDS = st.sampled_from(["steps", "cached", "other", "failing", "interrupted", "pictures"])
SERVERS = 3


@dataclass
class Day:
    """What runs on each server, in which order the servers get to speak, and when the page reconnects."""

    prompts: list[list[str]]
    turns: list[int]
    reconnects: list[int]
    away: int


@st.composite
def days(draw: st.DrawFn) -> Day:
    prompts = [draw(st.lists(KINDS, max_size=3)) for _ in range(SERVERS)]
    turns = draw(st.lists(st.integers(0, 10_000), min_size=20, max_size=200))
    reconnects = draw(st.lists(st.integers(0, 150), max_size=2))
    return Day(prompts, turns, reconnects, draw(st.integers(1, 60)))


def page(rig: SessionRig) -> Page:
    """A page that has opened its WebSocket and said what it supports."""
    tab = Page()
    join(rig, tab)
    return tab


def join(rig: SessionRig, tab: Page) -> None:
    rig.attach(tab)
    payload = b'{"type": "feature_flags", "data": {"supports_preview_metadata": true}}'
    rig.session.from_client(tab, payload, False, rig.now)


def play(rig: SessionRig, day: Day, tab: Page, scripts: list[list[Message]]) -> None:
    """Let the servers speak, each its messages in order, and those of different servers in any."""
    left = [list(script) for script in scripts]
    turn = leaves = 0
    while any(left):
        if turn in day.reconnects and rig.session.is_attached:
            rig.session.detach(tab, rig.now)
            leaves = turn
        if not rig.session.is_attached and turn >= leaves + day.away:
            join(rig, tab)
        speaking = [server for server in range(SERVERS) if left[server]]
        server = speaking[day.turns[turn % len(day.turns)] % len(speaking)]
        rig.now += 0.01
        rig.sends(server, *left[server].pop(0))
        if turn % 25 == 0:
            rig.session.due(rig.now)
        turn += 1
    if not rig.session.is_attached:
        join(rig, tab)
    rig.wait(1.0)


def one_after_the_other(endings: list[str], stories: dict[str, list[Message]]) -> Page:
    """The page of one server that has run these prompts in the order of their endings."""
    tab = Page()
    for message in RECORDING.greeting():
        tab.send(*message)
    for prompt in endings:
        for message in stories[prompt]:
            tab.send(*message)
    return tab


@settings(max_examples=60, deadline=None)
@given(days())
def test_the_page_ends_where_one_server_would_have_brought_it(day: Day) -> None:
    rig = SessionRig(SERVERS)
    tab = page(rig)
    rig.open(*range(SERVERS))
    rig.says(0, "feature_flags", {"supports_preview_metadata": True})
    stories: dict[str, list[Message]] = {}
    scripts: list[list[Message]] = []
    for server, kinds in enumerate(day.prompts):
        scripts.append([])
        for kind in kinds:
            prompt = f"{len(stories):036d}"
            stories[prompt] = RECORDING.prompt(kind, prompt)
            rig.add(server, prompt)
            scripts[-1] += stories[prompt]

    play(rig, day, tab, scripts)

    assert sorted(tab.endings) == sorted(stories)
    assert tab.state == one_after_the_other(tab.endings, stories).state
    assert tab.misplaced == []
    assert all(job == active for active, job in tab.previews)
    assert tab.remaining[-1] == 0
    assert tab.flags == {"supports_preview_metadata": True}
    assert tab.sid == "cid"


def test_what_the_page_is_told_of_one_server_is_what_that_says() -> None:
    rig = SessionRig(1)
    tab, alone = page(rig), Page()
    rig.open(0)
    for kind in ("steps", "cached", "failing"):
        prompt = f"{kind:>36}"
        rig.add(0, prompt)
        for message in RECORDING.prompt(kind, prompt):
            rig.now += 0.3
            rig.sends(0, *message)
            alone.send(*message)
    assert tab.state == alone.state
    assert tab.previews == alone.previews
    assert tab.other == alone.other == ["pack.step"] * 6
