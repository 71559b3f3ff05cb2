"""The reviews and verdicts of a document: read and written."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

from backends.json_files.legacy.lens.binding import bound_phase
from backends.json_files.legacy.lens.dialects import OURS, Dialect
from backends.json_files.legacy.lens.element import (
    Json,
    ours_of,
    read_element,
    write_element,
)
from backends.jsonl.times import Times
from registry_api.records import (
    Kind,
    Review,
    TaskState,
    Verdict,
    is_id,
)

__all__ = ["ReviewWriter", "read_review", "read_verdicts", "verdict_id_of"]

# Keys of a library review, which holds its single verdict itself.
_FLAT = frozenset({"agent_id", "findings", "verdict"})


def _is_flat(element: Json) -> bool:
    return "agent_id" in element


def _review_derived(element: Json) -> frozenset[str]:
    return _FLAT if _is_flat(element) else frozenset()


def _reviewers(element: Json) -> tuple[str, ...]:
    listed = element.get("reviewers")
    if isinstance(listed, list):
        found = [r.get("agent_id") for r in listed if isinstance(r, dict)]
        return tuple(r for r in found if isinstance(r, str) and "\x00" not in r)
    name = element.get("agent_id")
    return (name,) if isinstance(name, str) and "\x00" not in name else ()


def read_review(
    element: Json, task_id: str, times: Times, dialect: Dialect, by_id: dict[str, int]
) -> Review:
    """Return the review in an element, which has an id."""
    fixed: Json = {
        "task_id": task_id,
        "phase_index": bound_phase(element, by_id),
        "reviewers": _reviewers(element),
    }
    said = element.get("verdict")
    if _is_flat(element) and isinstance(said, str) and "final_verdict" not in element:
        fixed["verdict"] = said
    derived = _review_derived(element)
    return cast(
        Review,
        read_element(Kind.REVIEW, element, dialect=dialect, times=times, derived=derived, **fixed),
    )


def read_verdicts(element: Json, review: Review, times: Times, dialect: Dialect) -> list[Verdict]:
    """Return the verdicts in the element of a review."""
    listed = element.get("verdicts")
    fixed: Json = {"task_id": review.task_id, "review_id": review.review_id}
    if isinstance(listed, list):
        out = []
        for place, item in enumerate(listed):
            if isinstance(item, dict):
                key = verdict_id_of(item, review.review_id, place)
                out.append(
                    read_element(
                        Kind.VERDICT, item, dialect=dialect, times=times, verdict_id=key, **fixed
                    )
                )
        return cast(list[Verdict], out)
    said = element.get("verdict")
    if not _is_flat(element) or not isinstance(said, str):
        return []
    flat: Json = {k: element[k] for k in ("verdict", "findings", "reviewer_notes") if k in element}
    verdict = read_element(
        Kind.VERDICT,
        flat,
        dialect=dialect,
        times=times,
        verdict_id=f"{review.review_id[:120]}.0",
        reviewer_id=next(iter(review.reviewers), None),
        submitted_at=review.completed_at or review.created_at,
        **fixed,
    )
    return [cast(Verdict, verdict)]


def verdict_id_of(item: Json, review_id: str, place: int) -> str:
    """Return the id of a verdict at a place in the list of its review."""
    named = ours_of(item).get("verdict_id")
    return cast(str, named) if is_id(named) else f"{review_id[:120]}.{place}"


@dataclass(slots=True)
class ReviewWriter:
    """Writes the reviews of a state; ``by_id``: the phases' indexes by their ids."""

    after: TaskState
    by_id: dict[str, int]
    times: Times
    dialect: Dialect

    def _element(self, kind: Kind, record: Any, element: Json, **options: Any) -> None:
        write_element(kind, record, element, dialect=self.dialect, times=self.times, **options)

    def write(self, before: TaskState, listed: list[Any]) -> None:
        """Change the document's list of reviews from one state to the other."""
        by_id, first = self.by_id, set[str]()
        kept: list[Any] = []
        for element in listed:
            key = element.get("review_id") if isinstance(element, dict) else None
            if is_id(key) and key in before.reviews and key not in self.after.reviews:
                continue
            if not is_id(key) or key in first:
                kept.append(element)
                continue
            first.add(cast(str, key))
            review = self.after.reviews.get(cast(str, key))
            if review is not None:
                self._review(review, element, by_id)
                kept.append(element)
            elif key not in before.reviews:
                kept.append(element)
        for key, review in self.after.reviews.items():
            if key not in first:
                element = {}
                self._review(review, element, by_id)
                kept.append(element)
        listed[:] = kept

    def _review(self, review: Review, element: Json, by_id: dict[str, int]) -> None:
        found = (
            read_review(element, review.task_id, self.times, self.dialect, by_id)
            if element
            else None
        )
        if found != review:
            self._element(Kind.REVIEW, review, element, derived=_review_derived(element))
            if bound_phase(element, by_id) != review.phase_index:
                element["phase_index"] = review.phase_index
            if _reviewers(element) != review.reviewers:
                self._reviewers(review, element)
            now = read_review(element, review.task_id, self.times, self.dialect, by_id)
            if now.verdict != review.verdict:
                element["final_verdict"] = review.verdict
        wanted = {
            v.verdict_id: v for v in self.after.verdicts.values() if v.review_id == review.review_id
        }
        now = read_review(element, review.task_id, self.times, self.dialect, by_id)
        listed = read_verdicts(element, now, self.times, self.dialect)
        if {verdict.verdict_id: verdict for verdict in listed} != wanted:
            self._verdicts(review, element, wanted)
        elif "verdicts" not in element and not _is_flat(element):
            element["verdicts"] = []

    def _reviewers(self, review: Review, element: Json) -> None:
        listed = element.get("reviewers")
        known = {
            r["agent_id"]: r
            for r in (listed if isinstance(listed, list) else [])
            if isinstance(r, dict) and isinstance(r.get("agent_id"), str)
        }
        element["reviewers"] = [
            known.get(name, {"agent_id": name, "status": "reviewing"}) for name in review.reviewers
        ]

    def _verdicts(self, review: Review, element: Json, wanted: dict[str, Verdict]) -> None:
        listed = element.get("verdicts")
        rest, kept = dict(wanted), list[Json]()
        for place, item in enumerate(listed if isinstance(listed, list) else []):
            if not isinstance(item, dict):
                continue
            verdict = rest.pop(verdict_id_of(item, review.review_id, place), None)
            if verdict is not None:
                self._verdict(verdict, item, len(kept))
                kept.append(item)
        for verdict in rest.values():
            item = {}
            self._verdict(verdict, item, len(kept))
            kept.append(item)
        element["verdicts"] = kept

    def _verdict(self, verdict: Verdict, item: Json, place: int) -> None:
        self._element(Kind.VERDICT, verdict, item)
        ours = ours_of(item)
        if verdict.verdict_id == f"{verdict.review_id[:120]}.{place}":
            ours.pop("verdict_id", None)
            if not ours:
                item.pop(OURS, None)
