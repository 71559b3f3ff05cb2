"""0 to 1 and 1 to 2: the target catches up with the source and is compared with it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field, replace

from backends.dual_write.comparison import compare_tail, surplus_tasks, verify_tasks
from backends.dual_write.replicator import Replicator
from backends.dual_write.steps.base import BaseStep
from backends.dual_write.throttle import Throttle
from registry_api.capabilities import MigrationSource, provides
from registry_api.errors import (
    VerificationFailed,
)
from registry_api.migration import Mismatch, VerifyReport
from registry_api.records import Head

__all__ = ["Sync"]

_ROUNDS = 6

_SHORT = 0.02  # seconds of a round that leaves almost nothing to copy


@dataclass(slots=True)
class Sync(BaseStep):
    """0 to 1, 1 to 2: the target catches up with the source and is compared with it."""

    seen: dict[str, Head] = field(default_factory=dict)

    def prepare(self) -> int:
        """See Step.prepare."""
        context, replicator = self.context, self.context.replicator
        context.settle_roles()
        context.refuse_taken_target()
        task_ids = list(context.heads())
        done = context.catch_up(task_ids, context.progress)
        seen = context.heads()
        self.verified = verify_tasks(replicator, task_ids, progress=context.progress)
        surplus = surplus_tasks(replicator, set(seen))
        if surplus:
            self.verified = replace(self.verified, mismatches=(*self.verified.mismatches, *surplus))
        require_equal(self.verified)
        # Tasks that kept changing are compared from their start, still while writers continue.
        self.seen = {t: h for t, h in seen.items() if t not in self.verified.in_flight}
        narrow(replicator, self.seen, context.heads, context.throttle)
        context.refuse_taken_target()
        return done

    def final_sync(self) -> int:
        """See Step.final_sync."""
        source = self.context.source
        if provides(source, MigrationSource):
            return self._settle(source.moved(self.seen))
        return self._settle(
            {t: h for t, h in self.context.heads().items() if self.seen.get(t) != h}
        )

    def _settle(self, moved: dict[str, Head]) -> int:
        replicator, foreign = self.context.replicator, self.context.foreign
        with foreign.as_recorded() if foreign is not None else nullcontext():
            return settle(replicator, list(moved), self.seen)


def narrow(
    replicator: Replicator,
    seen: dict[str, Head],
    heads: Callable[[], dict[str, Head]],
    throttle: Throttle,
) -> None:
    """Copy and compare, while writers continue, the tasks that are not at their head in ``seen``.

    ``seen`` is updated. Each round should take less time than the one before, and so leave less
    work to the next one and finally to the part while the gate is held; if a round takes more than
    half the time, writers are slowed down. Differences found here are reported by that last part.
    """
    before = math.inf
    throttle.hold()
    for _ in range(_ROUNDS):
        start = time.monotonic()
        moved = [t for t, h in heads().items() if seen.get(t) != h]
        for task_id in moved:
            head, differences = compare_tail(replicator, task_id, seen.get(task_id, Head()))
            if not differences:
                seen[task_id] = head
        took = time.monotonic() - start
        if took < _SHORT:
            break
        if took > before / 2:
            throttle.slower()
        before = took
    replicator.catch_up_all(heads())


def settle(replicator: Replicator, moved: list[str], seen: dict[str, Head]) -> int:
    """Copy and compare, while the gate is held, the tasks that changed since ``seen``.

    Returns how many were behind. Raises VerificationFailed.
    """
    caught_up = replicator.catch_up_all(moved)
    mismatches: list[Mismatch] = []
    for task_id in moved:
        mismatches += compare_tail(replicator, task_id, seen.get(task_id, Head()))[1]
    require_equal(VerifyReport(tasks=len(moved), mismatches=tuple(mismatches)))
    return caught_up


def require_equal(report: VerifyReport) -> None:
    """Raise VerificationFailed, naming the first difference."""
    if report.mismatches:
        first = report.mismatches[0]
        raise VerificationFailed(
            f"{len(report.mismatches)} differences, the first in task {first.task_id} at "
            f"{first.pointer or '/'}: {first.source!r} in the source, {first.target!r} in the "
            "target; the phase is unchanged",
            next_step=f"registry-backend diff {first.task_id}",
        )
