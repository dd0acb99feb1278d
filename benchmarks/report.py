"""What is printed: a table for each work, and how comfyproxy stands against what was set out to reach."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from benchmarks.peers import COMFYPROXY, DIRECT, HAPROXY, NGINX
from benchmarks.rounds import Samples

MICRO = 1e6
MILLI = 1e3


@dataclass(frozen=True)
class Target:
    """``metric`` of comfyproxy in ``work`` is to be at most ``at_most`` times that of ``against``.

    An empty ``against`` makes it a bound by itself, in octets. ``wished`` would be better still.
    """

    work: str
    metric: str
    at_most: float
    against: str = NGINX
    wished: float | None = None


KIB = 1024

TARGETS = (
    Target("small", "cpu", 1.7, NGINX, 1.2),
    Target("small", "cpu", 1.4, HAPROXY),
    Target("small", "cpu", 0.4, "envoy"),
    Target("small", "cpu", 0.3, "caddy"),
    Target("small", "cpu", 0.15, "http-proxy"),
    Target("small", "cpu", 0.07, "ReverseProxyResource"),
    Target("logged", "cpu", 2.0, NGINX, 1.4),
    Target("latency", "added p50", 1.3, NGINX, 1.0),
    Target("latency", "added p99", 1.3, NGINX, 1.0),
    Target("download", "cpu", 1.3, HAPROXY, 1.0),
    Target("download", "cpu", 0.5, NGINX),
    Target("upload", "cpu", 1.3, HAPROXY, 1.0),
    Target("upload", "cpu", 0.5, NGINX),
    Target("picture", "cpu", 0.6, NGINX),
    Target("echo", "cpu", 2.5, NGINX, 1.5),
    Target("preview", "cpu", 0.7, NGINX),
    Target("idle clients", "memory", 4 * KIB, ""),
    Target("idle WebSockets", "memory", 8 * KIB, ""),
    Target("many servers", "cpu", 1.1, "three servers", 1.0),
)

Results = Mapping[str, Samples]


def medians(samples: Samples) -> dict[str, dict[str, float]]:
    """The median of every metric of every peer, and the latencies that each adds to those without a proxy."""
    found = {
        peer: {metric: median(values) for metric, values in metrics.items()}
        for peer, metrics in samples.items()
    }
    direct = found.get(DIRECT, {})
    for metrics in found.values():
        for metric in ("p50", "p99"):
            if metric in metrics and metric in direct:
                metrics[f"added {metric}"] = metrics[metric] - direct[metric]
    return found


def table(title: str, samples: Samples, unit: str, scale: str, reference: str) -> Iterator[str]:
    """The lines of one work's table: the cheapest first."""
    found = medians(samples)
    factor = MICRO if scale == "us" else MILLI
    first = "memory" if any("memory" in metrics for metrics in found.values()) else "cpu"
    timed = DIRECT in found
    latencies = ["p50", "p99", "added p50", "added p99"] if timed else []
    heading = "octets" if first == "memory" else f"CPU {scale}/{unit}"
    yield f"\n{title}"
    columns = [f"{heading:>14}", f"{'rounds':>13}", f"{'of ' + reference:>12}"]
    if first == "cpu":
        columns.append(f"{'per second':>12}")
    yield " ".join([f"  {'':24}", *columns, *(f"{one:>10}" for one in latencies)])
    base = found.get(reference, {}).get(first)
    for peer in sorted(found, key=lambda one: found[one].get(first, 0)):
        metrics = found[peer]
        cells = _cost(metrics, samples[peer], first, 1 if first == "memory" else factor, base)
        if first == "cpu":
            cells.append(f"{metrics['rate']:12.0f}" if "rate" in metrics else " " * 12)
        cells += [f"{metrics[one] * MICRO:10.0f}" if one in metrics else " " * 10 for one in latencies]
        yield " ".join([f"  {peer:24}", *cells]).rstrip()


def _cost(
    metrics: Mapping[str, float],
    samples: Mapping[str, Sequence[float]],
    metric: str,
    factor: float,
    base: float | None,
) -> list[str]:
    if metric not in metrics:
        return [" " * 14, " " * 13, " " * 12]
    digits = 0 if metric == "memory" else 1 if metrics[metric] * factor >= 20 else 2
    low, high = min(samples[metric]) * factor, max(samples[metric]) * factor
    ratio = f"{metrics[metric] / base:12.2f}" if base else " " * 12
    spread = f"{low:.{digits}f}-{high:.{digits}f}"
    return [f"{metrics[metric] * factor:14.{digits}f}", f"{spread:>13}", ratio]


def standing(results: Results) -> Iterator[str]:
    """How comfyproxy stands against `TARGETS`, as far as this run tells."""
    yield "\nwhat was set out to reach (comfyproxy, of the peer)"
    for target in TARGETS:
        found = medians(results.get(target.work, {}))
        ours = found.get(COMFYPROXY, {}).get(target.metric, 0)
        theirs = 1.0
        if target.against == "three servers":
            theirs = medians(results.get("three servers", {})).get(COMFYPROXY, {}).get(target.metric, 0)
        elif target.against:
            theirs = found.get(target.against, {}).get(target.metric, 0)
        if ours > 0 and theirs > 0:
            yield _judged(target, ours / theirs)


def _judged(target: Target, reached: float) -> str:
    if reached <= (target.wished if target.wished is not None else -1):
        verdict = "better than set out for"
    else:
        verdict = "reached" if reached <= target.at_most else "SHORT"
    digits = 2 if target.against else 0
    wished = f", wished {target.wished:.{digits}f}" if target.wished is not None else ""
    bound = f"<= {target.at_most:.{digits}f}{wished}"
    what = f"{target.work:16} {target.metric:10} {target.against:22}"
    return f"  {what} {reached:8.{digits}f}  {bound:24} {verdict}"
