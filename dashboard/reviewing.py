"""The reviews of all tasks: what waits for a human or a verdict, and what was decided last."""

from __future__ import annotations

from dataclasses import dataclass

from registry_api import (
    Kind,
    Phase,
    PhaseStatus,
    RecordQuery,
    Refs,
    RegistryStore,
    Review,
    ReviewStatus,
    Verdict,
)

__all__ = ["OPEN", "Reviewed", "Reviews", "reviews_of"]

OPEN = (ReviewStatus.PENDING, ReviewStatus.IN_PROGRESS)
_LIMIT = 50
_VERDICTS = Refs(kinds=frozenset({Kind.VERDICT}))


@dataclass(frozen=True, slots=True, kw_only=True)
class Reviewed:
    """A review and what its reviewers said so far."""

    review: Review
    verdicts: tuple[Verdict, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reviews:
    """At most 50 of each, the newest first; ``escalated`` are phases."""

    escalated: tuple[Phase, ...]
    open: tuple[Reviewed, ...]
    decided: tuple[Reviewed, ...]


def reviews_of(store: RegistryStore) -> Reviews:
    """Read them; costs as much as there are open ones."""
    found = [
        r
        for status in OPEN
        for r in store.list_records(
            Kind.REVIEW, RecordQuery(status=status, newest_first=True), limit=_LIMIT
        ).items
        if isinstance(r, Review)
    ]
    newest = store.list_records(Kind.REVIEW, RecordQuery(newest_first=True), limit=_LIMIT)
    decided = [r for r in newest.items if isinstance(r, Review) and r.status not in OPEN]
    escalated = store.list_records(
        Kind.PHASE, RecordQuery(status=PhaseStatus.ESCALATED), limit=_LIMIT
    )
    tasks = {r.task_id for r in (*found, *decided)}
    said = [v for task_id in tasks for v in store.load(task_id, only=_VERDICTS).verdicts]

    def reviewed(review: Review) -> Reviewed:
        place = review.task_id, review.review_id
        of = tuple(v for v in said if (v.task_id, v.review_id) == place)
        return Reviewed(review=review, verdicts=of)

    return Reviews(
        escalated=tuple(p for p in escalated.items if isinstance(p, Phase)),
        open=tuple(map(reviewed, found)),
        decided=tuple(map(reviewed, decided)),
    )
