"""`python -m conformance.fuzzing`: searches for inputs that fail a target."""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from conformance.corpora import ROOT
from conformance.fuzzing.targets import FOUND, TARGETS, Target, seeds

CORPUS = ROOT / ".cache" / "fuzzing"
"""What the fuzzer found worth keeping, target by target; the next run goes on from there."""

SECONDS = 60
MAX_LENGTH = 2048
SLOWEST = 2
"""Seconds that one input of that length may take."""

MEMORY = 1024
"""Mebibytes that the fuzzing process may take."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what is asked for; 1 if a target failed."""
    options = _parser().parse_args(arguments)
    if options.list:
        print("\n".join(f"{name:13} {target.meaning}" for name, target in TARGETS.items()))
        return 0
    chosen = options.target or list(TARGETS)
    if options.replay:
        return replay(chosen, [Path(one) for one in options.replay])
    held = fuzz(chosen, options.seconds, options.jobs)
    failed = [name for name in chosen if name not in held]
    print(f"failed: {', '.join(failed)}" if failed else f"{len(chosen)} targets held")
    return int(bool(failed))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m conformance.fuzzing", description=__doc__)
    parser.add_argument("--seconds", type=int, default=SECONDS, help="for each target (default: %(default)s)")
    parser.add_argument("--jobs", type=int, default=1, help="targets at a time (default: %(default)s)")
    parser.add_argument("--target", action="append", choices=list(TARGETS), help="only this; repeatable")
    parser.add_argument("--replay", nargs="+", metavar="FILE", help="run these inputs once, without fuzzing")
    parser.add_argument("--list", action="store_true", help="what there is to fuzz")
    return parser


def fuzz(names: Sequence[str], seconds: int, jobs: int) -> set[str]:
    """Fuzz these targets for that time each; those that held. What failed one is shown and kept."""
    with tempfile.TemporaryDirectory() as directory:
        runs = [_run(name, seconds, Path(directory, name)) for name in names]
        command = [sys.executable, "-m", "conformance.fuzzing.instrumented", str(jobs)]
        pipe = subprocess.PIPE
        with subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe, text=True) as fuzzer:
            assert fuzzer.stdin is not None
            assert fuzzer.stdout is not None
            json.dump(runs, fuzzer.stdin)
            fuzzer.stdin.close()
            ends = (json.loads(line) for line in fuzzer.stdout)
            return {name for name, status in ends if _has_held(name, status, Path(directory, name))}


def _run(name: str, seconds: int, place: Path) -> dict[str, object]:
    """What `conformance.fuzzing.instrumented` is told of one target."""
    corpus = CORPUS / name
    corpus.mkdir(parents=True, exist_ok=True)
    options = [*_options(name, TARGETS[name], seconds, place), str(corpus), str(place / "seeds")]
    return {"target": name, "options": options, "log": str(place / "log")}


def _has_held(name: str, status: int, place: Path) -> bool:
    output = (place / "log").read_text(errors="replace")
    found = sorted((place / "found").iterdir())
    if status == 0 and not found:
        print(f"{name:13} held: {_last_line(output)}", flush=True)
        return True
    print(f"{name:13} FAILED with status {status}\n{_trace(output)}", flush=True)
    for path in found:
        kept = CORPUS / f"{name}-{path.name}"
        kept.write_bytes(path.read_bytes())
        print(f"{path.read_bytes()!r}\nkept as {kept}; when it is mended, move it to {FOUND / name}")
    return False


def _options(name: str, target: Target, seconds: int, place: Path) -> list[str]:
    """libFuzzer's options; fills the directory ``place`` with what they name."""
    for directory in ("seeds", "found"):
        (place / directory).mkdir(parents=True)
    for number, seed in enumerate(seeds(name)):
        (place / "seeds" / f"{number:04}").write_bytes(seed)
    words = place / "words"
    # libFuzzer takes no empty dictionary.
    words.write_text("".join(f'"{_escaped(word)}"\n' for word in target.words or ("=",)))
    return [
        f"-max_total_time={seconds}",
        f"-max_len={MAX_LENGTH}",
        f"-timeout={SLOWEST}",
        f"-rss_limit_mb={MEMORY}",
        f"-artifact_prefix={place / 'found'}/",
        f"-dict={words}",
        "-print_final_stats=1",
    ]


def _escaped(word: str) -> str:
    """A word as libFuzzer's dictionaries have it."""
    return "".join(f"\\x{octet:02x}" for octet in word.encode())


def _last_line(output: str) -> str:
    return next((line for line in reversed(output.splitlines()) if line.startswith("Done ")), "")


def _trace(output: str) -> str:
    """The end of what was printed: the traceback, or libFuzzer's own words."""
    lines = [line for line in output.splitlines() if not line.startswith("INFO:")]
    return "\n".join(lines[-40:])


def replay(names: Sequence[str], paths: Sequence[Path]) -> int:
    """Run inputs as a failure left them; the first that fails raises."""
    for name in names:
        for path in paths:
            TARGETS[name].run(path.read_bytes())
    print(f"{len(paths)} inputs held")
    return 0


if __name__ == "__main__":
    sys.exit(main())
