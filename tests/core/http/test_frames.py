"""Where WebSocket frames end, in streams that are cut anywhere; vectors after RFC 6455 section 5.7."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comfyproxy.core.http.frames import MAX_REASON, FrameTracker, close_frame

FRAMES = {
    "text": b"\x81\x05Hello",
    "masked text": b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58",
    "first fragment": b"\x01\x03Hel",
    "last fragment": b"\x80\x02lo",
    "empty": b"\x82\x00",
    "empty, masked": b"\x82\x80\x01\x02\x03\x04",
    "ping": b"\x89\x05Hello",
    "close": b"\x88\x02\x03\xe8",
    "compressed": b"\xc1\x07\xf2\x48\xcd\xc9\xc9\x07\x00",
    "125 octets": b"\x82\x7d" + bytes(125),
    "126 octets": b"\x82\x7e\x00\x7e" + bytes(126),
    "256 octets": b"\x82\x7e\x01\x00" + bytes(256),
    "256 octets, masked": b"\x82\xfe\x01\x00\x01\x02\x03\x04" + bytes(256),
    "64 KiB": b"\x82\x7f\x00\x00\x00\x00\x00\x01\x00\x00" + bytes(65536),
    "64 KiB, masked": b"\x82\xff\x00\x00\x00\x00\x00\x01\x00\x00\x01\x02\x03\x04" + bytes(65536),
    "few octets in the longest header": b"\x82\x7f\x00\x00\x00\x00\x00\x00\x00\x01x",
}


@pytest.mark.parametrize("frame", FRAMES.values(), ids=FRAMES)
@pytest.mark.parametrize("before", [b"", b"\x81\x02hi"], ids=["first", "second"])
def test_a_frame_ends_where_it_ends_and_nowhere_before(frame: bytes, before: bytes) -> None:
    places = [*range(1, min(len(frame), 20)), len(frame) - 1]
    for place in (place for place in places if 0 < place < len(frame)):
        tracker = FrameTracker()
        tracker.feed(before + frame[:place])
        assert not tracker.is_between_frames, place
        rest = frame[place:]
        assert tracker.end_in(rest[:-1]) == -1
        assert tracker.end_in(rest) == tracker.end_in(rest + b"\x81\x02hi") == len(rest)
        tracker.feed(rest)
        assert tracker.is_between_frames, place


def test_nothing_is_no_frame() -> None:
    tracker = FrameTracker()
    tracker.feed(b"")
    assert tracker.is_between_frames


@given(
    frames=st.lists(st.sampled_from([frame for frame in FRAMES.values() if len(frame) < 300]), max_size=8),
    rest=st.sampled_from([b"", b"\x81", b"\x81\x7e", b"\x81\x7e\x00", b"\x82\xff\x00", b"\x81\x05Hel"]),
    cuts=st.lists(st.integers(0, 2000), max_size=12),
)
def test_however_a_stream_is_cut_it_is_the_same_stream(
    frames: list[bytes], rest: bytes, cuts: list[int]
) -> None:
    stream = b"".join([*frames, rest])
    ends = {0}
    for frame in frames:
        ends.add(max(ends) + len(frame))
    tracker, last = FrameTracker(), 0
    for place in sorted({*(min(cut, len(stream)) for cut in cuts), len(stream)}):
        tracker.feed(stream[last:place])
        last = place
        assert tracker.is_between_frames == (place in ends)
        if not tracker.is_between_frames:
            later = [end for end in ends if end > place]
            assert tracker.end_in(stream[place:]) == (min(later) - place if later else -1)


@pytest.mark.parametrize(
    ("code", "reason", "frame"),
    [
        (1001, "", b"\x88\x02\x03\xe9"),
        (1001, "The proxy is stopping.", b"\x88\x18\x03\xe9The proxy is stopping."),
        (1012, "x" * 200, b"\x88\x7d\x03\xf4" + b"x" * MAX_REASON),
    ],
)
def test_a_close_frame_says_a_code_and_a_reason(code: int, reason: str, frame: bytes) -> None:
    assert close_frame(code, reason) == frame
    tracker = FrameTracker()
    tracker.feed(frame)
    assert tracker.is_between_frames
