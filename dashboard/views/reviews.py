"""The reviews of all tasks: escalated phases, open reviews, and the newest decided ones."""

from __future__ import annotations

from collections.abc import Iterable
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
    Task,
    Verdict,
)

__all__ = ["OPEN", "Reviewed", "Reviews", "objections_to", "reviews_of"]

OPEN = frozenset({ReviewStatus.PENDING, ReviewStatus.IN_PROGRESS})
_LIMIT = 50
_VERDICTS = Refs(kinds=frozenset({Kind.VERDICT}))
_ESCALATED = Refs(kinds=frozenset({Kind.REVIEW, Kind.VERDICT}))


@dataclass(frozen=True, slots=True, kw_only=True)
class Reviewed:
    """A review with the verdicts that were given so far."""

    review: Review
    verdicts: tuple[Verdict, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Escalated:
    """A phase that waits for a human, its task, and what its reviewers objected to."""

    phase: Phase
    task: Task
    objections: tuple[Verdict, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reviews:
    """Escalated phases, open and decided reviews: at most 50 of each, the newest reviews first.

    ``more`` names the fields of which there are more.
    """

    escalated: tuple[Escalated, ...]
    open: tuple[Reviewed, ...]
    decided: tuple[Reviewed, ...]
    more: frozenset[str]


def reviews_of(store: RegistryStore) -> Reviews:
    """Read the escalated phases and the reviews of a store, with their verdicts."""
    query = RecordQuery(status=PhaseStatus.ESCALATED)
    page = store.list_records(Kind.PHASE, query, limit=_LIMIT)
    escalated = tuple(_escalated(store, p) for p in page.items if isinstance(p, Phase))
    found, more_open = _newest(store, OPEN)
    decided, more_decided = _newest(store, set(ReviewStatus) - OPEN)
    more = {"escalated": page.next, "open": more_open, "decided": more_decided}
    tasks = {r.task_id for r in (*found, *decided)}
    said = [v for task_id in tasks for v in store.load(task_id, only=_VERDICTS).verdicts]

    def reviewed(review: Review) -> Reviewed:
        place = review.task_id, review.review_id
        of = tuple(v for v in said if (v.task_id, v.review_id) == place)
        return Reviewed(review=review, verdicts=of)

    return Reviews(
        escalated=escalated,
        open=tuple(map(reviewed, found)),
        decided=tuple(map(reviewed, decided)),
        more=frozenset(name for name, is_so in more.items() if is_so),
    )


def _escalated(store: RegistryStore, phase: Phase) -> Escalated:
    found = store.load(phase.task_id, only=_ESCALATED)
    objections = objections_to(phase, found.reviews, found.verdicts)
    return Escalated(phase=phase, task=found.task, objections=objections)


def objections_to(
    phase: Phase, reviews: Iterable[Review], verdicts: Iterable[Verdict]
) -> tuple[Verdict, ...]:
    """Return the verdicts of a phase's last decided review that do not approve it."""
    decided = [r for r in reviews if r.phase_index == phase.phase_index and r.status not in OPEN]
    last = max(decided, key=lambda r: r.created_at, default=None)
    if last is None:
        return ()
    said = (v for v in verdicts if v.review_id == last.review_id)
    return tuple(v for v in said if v.verdict != "approved")


def _newest(store: RegistryStore, statuses: Iterable[ReviewStatus]) -> tuple[list[Review], bool]:
    """Return the newest reviews of some statuses, and whether there are more."""
    found, more = list[Review](), False
    for status in statuses:
        query = RecordQuery(status=status, newest_first=True)
        page = store.list_records(Kind.REVIEW, query, limit=_LIMIT)
        found += [r for r in page.items if isinstance(r, Review)]
        more = more or page.next is not None
    found.sort(key=lambda r: (r.created_at, r.task_id, r.review_id), reverse=True)
    return found[:_LIMIT], more or len(found) > _LIMIT
