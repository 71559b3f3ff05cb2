"""Watch the processes of a workspace after a switch, and step back if there are problems."""

from __future__ import annotations

import re
import time
from collections import Counter

from registry_api import Settings
from registry_api.errors import UsageError
from registry_api.migration import Migration, MigrationPhase, Progress, SwitchReport
from registry_api.workspace import STATE_DIR, living, quantile

__all__ = ["Guard", "seconds_of"]

_EVERY = 1.0  # seconds between two reads of the counters
_SLOWER = 3.0  # times the 99th percentile before the switch: more is a problem
_ENOUGH = 100  # calls, before and after, that a comparison of percentiles needs
_UNITS = {"s": 1, "m": 60, "h": 3600}


def seconds_of(text: str) -> float:
    """Return the seconds of ``90``, ``90s``, ``10m`` or ``1h``; raises UsageError."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", text.strip())
    seconds = float(found[1]) * _UNITS[found[2] or "s"] if found else 0.0
    if not 0 < seconds <= 24 * 3600:
        raise UsageError(
            f"--guard {text} is not a time of at most 24 hours", next_step="e.g. --guard 10m"
        )
    return seconds


class Guard:
    """A watch over live processes: compares their counters after a switch with those before it.

    Create it before the switch, since it reads the counters at once.
    """

    def __init__(self, settings: Settings) -> None:
        self._folder = settings.workspace / STATE_DIR
        self._before = self._look()

    def _look(self) -> tuple[Counter[str], dict[str, list[int]]]:
        counts, times = Counter[str](), dict[str, list[int]]()
        for process in living(self._folder):
            counts.update(process.counts)
            for name, buckets in process.times.items():
                known = times.get(name, [0] * len(buckets))
                times[name] = [a + b for a, b in zip(known, buckets, strict=True)]
        return counts, times

    def watch(
        self,
        migration: Migration,
        report: SwitchReport,
        *,
        seconds: float,
        progress: Progress | None = None,
    ) -> SwitchReport:
        """Watch for ``seconds``; at the first problem step back to the phase before the switch.

        Problems are failed calls, answers that differ, and a 99th percentile that tripled. Returns
        a report with the steps back, if any, and a note.
        """
        start, after = time.monotonic(), self._look()
        while (passed := time.monotonic() - start) < seconds:
            if progress is not None:
                progress("guard", int(passed), int(seconds))
            time.sleep(min(_EVERY, seconds - passed))
            ill = self._ill(after)
            if ill is not None:
                return self._step_back(migration, report.steps[0].from_phase, ill)
        return SwitchReport(notes=(f"watched for {seconds:g} s: no problem found",))

    def _step_back(self, migration: Migration, to: MigrationPhase, ill: str) -> SwitchReport:
        back = migration.switch(to, actor="guard")
        return SwitchReport(steps=back.steps, notes=(f"stepped back to {to:d}: {ill}", *back.notes))

    def _ill(self, after: tuple[Counter[str], dict[str, list[int]]]) -> str | None:
        """Return the problem found since the switch, None if there is none."""
        counts, times = self._look()
        for name in ("failed", "mismatched"):
            # A sum over live processes: it falls when one ends, so only a rise tells anything.
            more = counts[name] - after[0][name]
            if more > 0:
                return f"{more} call(s) counted as {name}"
        for name in ("write", "read"):
            old = self._before[1].get(name, [])
            new = [
                max(0, b - a)
                for a, b in zip(after[1].get(name, old), times.get(name, old), strict=False)
            ]
            if min(sum(old), sum(new)) < _ENOUGH:
                continue
            was, now = quantile(old, 0.99), quantile(new, 0.99)
            if was and now and now > _SLOWER * was:
                return f"p99 latency of a {name} rose from {1e3 * was:.1f} to {1e3 * now:.1f} ms"
        return None
