"""Where the microseconds of one work go: samples of the running proxy, by function.

With py-spy, which looks from outside, time in system calls is seen too and what is measured runs at its
usual speed. It goes by the clock on the wall: where cores are few, waiting for one is counted where it
happens, mostly in ``send``, that wakes the receiver. Without py-spy the interpreter's own profiler has to do:
it makes calls of Python dearer than they are, so compare the numbers of calls rather than times.
"""

import pstats
import re
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.backends import running_backends
from benchmarks.peers import COMFYPROXY, PEERS, Place, Setting, program
from benchmarks.processes import Process, free_ports
from benchmarks.works import WORKS, Work

SHOWN = 40
RATE = 500
"""Samples a second."""

OUTSIDE = re.compile(r"\(libc|\(libpython|\.c:\d+\)|^0x|^_?sre|^sock_")
"""Frames of a stack that are not Python's own."""


def profile(name: str, seconds: float) -> int:
    """Profile comfyproxy at the work called ``name`` for about ``seconds``, and print it."""
    work = next(work for work in WORKS if work.name == name)
    spy = program("py-spy")()
    with tempfile.TemporaryDirectory(prefix="comfyproxy-profile-") as directory:
        place = Place(free_ports(1)[0], Path(directory) / "proxy")
        Path(directory).chmod(0o755)
        place.directory.mkdir(mode=0o755)
        (Path(directory) / "backends").mkdir(mode=0o755)
        with running_backends(Path(directory) / "backends", 100) as backends:
            setting = Setting(work.servers(backends), work.log, work.large, sockets=work.sockets)
            run = _sampled if spy is not None else _traced
            print("\n".join(run(work, setting, place, seconds)))
    return 0


def _sampled(work: Work, setting: Setting, place: Place, seconds: float) -> Iterator[str]:
    process = PEERS[COMFYPROXY].start(setting, place)
    try:
        process.wait_until_listening()
        work.load(process.port, 0.3)
        load = threading.Thread(target=lambda: work.load(process.port, seconds + 2))
        load.start()
        output = place.directory / "samples"
        options = ["-d", str(round(seconds)), "-r", str(RATE), "--native", "-f", "raw", "-o", str(output)]
        command = [str(program("py-spy")()), "record", "-p", str(process.pid), *options]
        subprocess.run(command, check=True, capture_output=True)
        load.join()
        before = process.cpu()
        done = work.load(process.port, 1.0)["count"]
        cost = (process.cpu() - before) / done * 1e6
    finally:
        process.stop()
    yield f"{work.title}: about {cost:.0f} us of processor time for one {work.unit}"
    yield from shares(output.read_text().splitlines(), cost)


def shares(stacks: Sequence[str], cost: float) -> Iterator[str]:
    """Lines that share ``cost`` out by function, from py-spy's stacks: ``outer;inner;innermost count``.

    What the innermost function of Python called in C counts as its own, system calls excepted.
    """
    own: Counter[str] = Counter()
    within: Counter[str] = Counter()
    for line in stacks:
        stack, _, count = line.rpartition(" ")
        frames = [re.sub(r":\d+\)$", ")", frame) for frame in stack.split(";")]
        python = [frame for frame in frames if not OUTSIDE.search(frame)]
        system = next((one for one in reversed(frames) if _is_system_call(one)), None)
        own[f"system call {system.split()[0]}" if system else python[-1] if python else "?"] += int(count)
        for frame in set(python):
            within[frame] += int(count)
    total = sum(own.values())
    yield f"{'us':>7} {'share':>6}   its own"
    for name, seen in own.most_common(SHOWN):
        yield f"{cost * seen / total:7.2f} {100 * seen / total:5.1f}%   {name}"
    yield f"{'us':>7} {'share':>6}   with what it calls"
    for name, seen in within.most_common(SHOWN):
        yield f"{cost * seen / total:7.2f} {100 * seen / total:5.1f}%   {name}"


def _is_system_call(frame: str) -> bool:
    return frame.split(" ")[0] in ("send", "recv", "epoll_wait", "epoll_ctl", "splice") and "libc" in frame


def _traced(work: Work, setting: Setting, place: Place, seconds: float) -> Iterator[str]:
    output = place.directory / "trace"
    peer = PEERS[COMFYPROXY]
    command = [sys.executable, "-m", "cProfile", "-o", str(output)]
    command += peer.command(str(peer.find()), setting, place)
    process = Process(command, place.port, place.directory / "output")
    try:
        process.wait_until_listening()
        count = work.load(process.port, seconds)["count"]
    finally:
        process.stop()
    yield f"{work.title}: {count} times, by cProfile, which itself takes most of this time (py-spy would not)"
    stats = pstats.Stats(str(output))
    everything = stats.stats.items()  # type: ignore[attr-defined]  # The stubs lack it.
    entries = sorted((one for one in everything if 2 * one[1][1] >= count), key=lambda one: -one[1][2])
    yield f"{'us':>7} {'calls':>6}   its own"
    for (file, line, name), (_, calls, own, *_) in entries[:SHOWN]:
        place_of = f"{'/'.join(file.split('/')[-2:])}:{line}" if line else file
        yield f"{own / count * 1e6:7.2f} {calls / count:6.2f}   {name} ({place_of})"
