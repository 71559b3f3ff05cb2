"""The counters of a workspace's live processes, in the text format of Prometheus."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from registry_api.migration.phase_file import PhaseFile
from registry_api.settings import Settings
from registry_api.workspace.paths import STATE_DIR
from registry_api.workspace.processes import COUNTS, PER_OPERATION, TIMES, bucket_bound, living

__all__ = ["metrics"]

_BOUNDS = tuple(range(7, 96, 4))  # one bucket per octave: 4 µs to 16 s


def metrics(settings: Settings) -> Iterator[str]:
    """Yield the lines; counters are sums over the live processes."""
    folder = settings.workspace / STATE_DIR
    record = PhaseFile(folder).read()
    counts, times = Counter[str](), dict[str, list[int]]()
    processes = living(folder)
    for process in processes:
        counts.update(process.counts)
        for name, buckets in process.times.items():
            known = times.get(name, [0] * len(buckets))
            times[name] = [a + b for a, b in zip(known, buckets, strict=True)]
    yield from _one("phase", "gauge", int(record.phase) if record else -1)
    yield from _one("epoch", "gauge", record.epoch if record else 0)
    yield from _one("processes", "gauge", len(processes))
    for name in COUNTS:
        yield from _one(f"{name}_total", "counter", counts[name])
    yield "# TYPE registry_compared_answers_total counter"
    for name in PER_OPERATION:
        op, _, outcome = name.partition(".")
        labels = f'{{op="{op}",outcome="{outcome}"}}'
        yield f"registry_compared_answers_total{labels} {counts[name]}"
    for name in TIMES:
        yield from _histogram(name, times.get(name, []))


def _one(name: str, kind: str, value: int) -> Iterator[str]:
    yield f"# TYPE registry_{name} {kind}"
    yield f"registry_{name} {value}"


def _histogram(name: str, buckets: list[int]) -> Iterator[str]:
    yield f"# TYPE registry_{name}_seconds histogram"
    for n in _BOUNDS:
        total = sum(buckets[: n + 1])
        yield f'registry_{name}_seconds_bucket{{le="{bucket_bound(n):.6g}"}} {total}'
    yield f'registry_{name}_seconds_bucket{{le="+Inf"}} {sum(buckets)}'
    yield f"registry_{name}_seconds_count {sum(buckets)}"
