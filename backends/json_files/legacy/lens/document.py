"""Convert a whole document to the task's records and back: ``encode(decode(d), d) == d``."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

from backends.files import Problem
from backends.json_files.legacy.lens.dialects import DEFAULTS, OURS, Dialect, dialect_of
from backends.json_files.legacy.lens.element import (
    Json,
    is_default,
    ours_of,
    read_element,
    write_element,
)
from backends.jsonl.times import Times
from registry_api.records import (
    ACTIVE_AGENT,
    FAILED_AGENT,
    SAFE_INT,
    TERMINAL_AGENT,
    Agent,
    Handover,
    Kind,
    Phase,
    Review,
    Task,
    TaskState,
    Verdict,
    is_id,
    json_text,
)

__all__ = ["decode", "encode"]

# Keys of a library review, which holds its single verdict itself.
_FLAT = frozenset({"agent_id", "findings", "verdict"})
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(slots=True)
class _Reader:
    document: Json
    task_id: str
    times: Times
    path: Path
    problems: list[Problem] = field(default_factory=list)

    def problem(self, what: str) -> None:
        self.problems.append(Problem(path=self.path, what=what))

    def unknown_words(self, where: str, record: Agent | Phase) -> None:
        """Report a status or progress that is not a word or number of ours."""
        if record.extra == "{}":
            return
        extra = json_text.parse_trusted(record.extra.encode())
        for key in ("status", "progress"):
            if key in extra:
                said = json_text.dump_text(extra[key])[:80]
                taken = getattr(record, key)
                self.problem(f"{where} has an unknown {key} {said}, read as {taken}")

    def elements(self, key: str) -> Iterator[tuple[int, Json]]:
        """Yield the objects of a top-level list with their indexes; report other items."""
        value = self.document.get(key)
        if value is None:
            return
        if not isinstance(value, list):
            self.problem(f"{key} is not a list, not read")
            return
        for place, element in enumerate(value):
            if isinstance(element, dict):
                yield place, element
            else:
                self.problem(f"{key}[{place}] is not an object, not read")


def decode(
    document: Json, *, task_id: str, times: Times, path: Path, problems: list[Problem]
) -> TaskState:
    """Return the records of a document; add to ``problems`` what could not be read."""
    reader = _Reader(document, task_id, times, path, problems)
    dialect = dialect_of(document)
    phases = _phases(reader, dialect)
    by_id = {p.phase_id: p.phase_index for p in phases.values() if p.phase_id}
    state = TaskState(_task(reader, dialect, by_id), phases)
    for place, element in reader.elements("agents"):
        key = element.get("id")
        if not is_id(key):
            reader.problem(f"agents[{place}] has no usable id ({key!r}), not read")
        elif key in state.agents:
            reader.problem(f"agents[{place}] repeats agent {key}, not read")
        else:
            agent = _agent(element, task_id, times, dialect, by_id)
            state.agents[agent.agent_id] = agent
            reader.unknown_words(f"agents[{place}]", agent)
    for place, element in reader.elements("reviews"):
        key = element.get("review_id")
        if not is_id(key):
            reader.problem(f"reviews[{place}] has no usable id ({key!r}), not read")
        elif key in state.reviews:
            reader.problem(f"reviews[{place}] repeats review {key}, not read")
        else:
            review = _review(element, task_id, times, dialect, by_id)
            state.reviews[review.review_id] = review
            for verdict in _verdicts(element, review, times, dialect):
                if verdict.verdict_id in state.verdicts:
                    reader.problem(f"verdict {verdict.verdict_id} occurs twice, read once")
                    continue
                state.verdicts[verdict.verdict_id] = verdict
    _read_ours(reader, state, dialect)
    return state


def _task(reader: _Reader, dialect: Dialect, by_id: dict[str, int]) -> Task:
    document = reader.document
    fixed: Json = {"task_id": reader.task_id, "current_phase_index": _current(document, by_id)}
    task = read_element(Kind.TASK, document, dialect=dialect, times=reader.times, **fixed)
    assert isinstance(task, Task)
    if task.created_at == _EPOCH and "created_at" not in document:
        return replace(task, created_at=_first_moment(reader))
    return task


def _first_moment(reader: _Reader) -> datetime:
    """Return a creation time for a document without one: the id's date or its first agent's."""
    named = re.fullmatch(r"TASK-(\d{8})-(\d{6})-.*", reader.task_id)
    if named:
        day, clock = named.groups()
        text = f"{day[:4]}-{day[4:6]}-{day[6:]}T{clock[:2]}:{clock[2:4]}:{clock[4:]}"
        moment = reader.times.read(text)
        if moment is not None:
            return moment
    agents = reader.document.get("agents")
    starts = [
        reader.times.read(a.get("started_at"))
        for a in (agents if isinstance(agents, list) else [])
        if isinstance(a, dict)
    ]
    return min((s for s in starts if s is not None), default=_EPOCH)


def _current(document: Json, by_id: dict[str, int]) -> int | None:
    if is_default(document, "current_phase_index") and not document.get("phases"):
        return None
    if "current_phase_index" in document:
        value = document["current_phase_index"]
        return value if type(value) is int and abs(value) <= SAFE_INT else None
    return by_id.get(str(document.get("current_phase_id")))


def _phase_index(place: int, element: Json) -> int:
    value = ours_of(element).get("phase_index")
    return value if type(value) is int and abs(value) <= SAFE_INT else place


def _phases(reader: _Reader, dialect: Dialect) -> dict[int, Phase]:
    out: dict[int, Phase] = {}
    for place, element in reader.elements("phases"):
        index = _phase_index(place, element)
        if index in out:
            reader.problem(f"phases[{place}] repeats phase {index}, not read")
            continue
        fixed: Json = {"task_id": reader.task_id, "phase_index": index}
        phase = read_element(Kind.PHASE, element, dialect=dialect, times=reader.times, **fixed)
        out[index] = cast(Phase, phase)
        reader.unknown_words(f"phases[{place}]", out[index])
    return out


def _bound(element: Json, by_id: dict[str, int]) -> int | None:
    """Return the phase that an element names, by index or else by id."""
    if "phase_index" in element:
        value = element["phase_index"]
        return value if type(value) is int and abs(value) <= SAFE_INT else None
    return by_id.get(str(element.get("phase_id")))


def _agent(
    element: Json, task_id: str, times: Times, dialect: Dialect, by_id: dict[str, int]
) -> Agent:
    fixed: Json = {"task_id": task_id, "phase_index": _bound(element, by_id)}
    return cast(Agent, read_element(Kind.AGENT, element, dialect=dialect, times=times, **fixed))


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


def _review(
    element: Json, task_id: str, times: Times, dialect: Dialect, by_id: dict[str, int]
) -> Review:
    fixed: Json = {
        "task_id": task_id,
        "phase_index": _bound(element, by_id),
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


def _verdicts(element: Json, review: Review, times: Times, dialect: Dialect) -> list[Verdict]:
    listed = element.get("verdicts")
    fixed: Json = {"task_id": review.task_id, "review_id": review.review_id}
    if isinstance(listed, list):
        out = []
        for place, item in enumerate(listed):
            if isinstance(item, dict):
                key = _verdict_id(item, review.review_id, place)
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


def _verdict_id(item: Json, review_id: str, place: int) -> str:
    named = ours_of(item).get("verdict_id")
    return cast(str, named) if is_id(named) else f"{review_id[:120]}.{place}"


def _read_ours(reader: _Reader, state: TaskState, dialect: Dialect) -> None:
    """Read what only our key can hold: handovers, and verdicts whose review is missing."""
    ours = ours_of(reader.document)
    for item in _objects(ours.get("handovers")):
        if is_id(item.get("handover_id")):
            handover = read_element(
                Kind.HANDOVER, item, dialect=dialect, times=reader.times, task_id=reader.task_id
            )
            assert isinstance(handover, Handover)
            state.handovers[handover.handover_id] = handover
    for item in _objects(ours.get("verdicts")):
        said, review_id = item.get("verdict"), item.get("review_id")
        if isinstance(said, dict) and is_id(review_id):
            verdict = read_element(
                Kind.VERDICT,
                said,
                dialect=dialect,
                times=reader.times,
                task_id=reader.task_id,
                review_id=review_id,
                verdict_id=_verdict_id(said, cast(str, review_id), -1),
            )
            assert isinstance(verdict, Verdict)
            state.verdicts[verdict.verdict_id] = verdict


def _objects(value: object) -> list[Json]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


# -- writing -----------------------------------------------------------------------------------


def encode(before: TaskState, after: TaskState, document: Json, *, times: Times) -> None:
    """Change ``document``, which holds ``before``, so that it holds ``after``.

    Only differences are written, and then the counters that follow from the records.
    """
    if before == after and document:
        return
    dialect = dialect_of(document)
    writer = _Writer(document, after, times, dialect)
    if not document:
        writer.begin()
    writer.phases(before)
    writer.agents(before)
    writer.reviews(before)
    writer.task(before)
    writer.ours(before)
    writer.counters()


@dataclass(slots=True)
class _Writer:
    document: Json
    after: TaskState
    times: Times
    dialect: Dialect

    def begin(self) -> None:
        """Give a new document the keys that legacy programs expect, in their order."""
        write_element(
            Kind.TASK, self.after.task, self.document, dialect=self.dialect, times=self.times
        )
        self.document |= {
            "phases": [],
            "current_phase_index": None,
            "agents": [],
            "agent_hierarchy": {"orchestrator": []},
            "total_spawned": 0,
            "active_count": 0,
            "completed_count": 0,
            "reviews": [],
        }
        missing = [k for k in DEFAULTS if self.document.get(k) is None]
        self.document |= {k: DEFAULTS[k] for k in missing}
        self.document[OURS] = {**ours_of(self.document), "defaults": missing}

    def element(self, kind: Kind, record: Any, element: Json, **options: Any) -> None:
        write_element(kind, record, element, dialect=self.dialect, times=self.times, **options)

    def listed(self, key: str) -> list[Any]:
        value = self.document.get(key)
        if not isinstance(value, list):
            value = self.document[key] = []
        return value

    def task(self, before: TaskState) -> None:
        task = self.after.task
        if task != before.task:
            self.element(Kind.TASK, task, self.document)
        by_id = self._by_id()
        if _current(self.document, by_id) != task.current_phase_index:
            self._no_default("current_phase_index")
            ids = {index: phase_id for phase_id, index in by_id.items()}
            named = ids.get(task.current_phase_index or 0)
            if self.dialect is Dialect.LIBRARY and named and task.current_phase_index is not None:
                self.document.pop("current_phase_index", None)
                self.document["current_phase_id"] = named
            else:
                self.document["current_phase_index"] = task.current_phase_index

    def _no_default(self, key: str) -> None:
        named = ours_of(self.document).get("defaults")
        if isinstance(named, list) and key in named:
            named.remove(key)

    def _by_id(self) -> dict[str, int]:
        return {p.phase_id: p.phase_index for p in self.after.phases.values() if p.phase_id}

    def phases(self, before: TaskState) -> None:
        if before.phases == self.after.phases:
            return
        listed = self.listed("phases")
        rest = dict(self.after.phases)
        kept: list[Any] = []
        for place, element in enumerate(listed):
            index = _phase_index(place, element) if isinstance(element, dict) else None
            if index is None or index not in before.phases:
                kept.append(element)
                continue
            phase = rest.pop(index, None)
            if phase is not None:
                self._phase(phase, element, len(kept))
                kept.append(element)
        for index in sorted(rest):
            element = {}
            self._phase(rest[index], element, len(kept))
            kept.append(element)
        listed[:] = kept

    def _phase(self, phase: Phase, element: Json, place: int) -> None:
        new = not element
        self.element(Kind.PHASE, phase, element)
        ours = ours_of(element)
        if phase.phase_index != place:
            element[OURS] = {**ours, "phase_index": phase.phase_index}
        elif "phase_index" in ours:
            del ours["phase_index"]
            if not ours:
                del element[OURS]
        if new or "order" in element:
            element["order"] = phase.phase_index + 1

    def agents(self, before: TaskState) -> None:
        if before.agents == self.after.agents:
            return
        listed = self.listed("agents")
        by_id, first = self._by_id(), set[str]()
        if before.agents.keys() == self.after.agents.keys():
            self._changed_agents(before, listed, by_id)
            return
        gone = before.agents.keys() - self.after.agents.keys()
        kept: list[Any] = []
        for element in listed:
            key = element.get("id") if isinstance(element, dict) else None
            if is_id(key) and key in gone:
                continue  # also its duplicates: one that stayed would be read as the agent
            if not is_id(key) or key in first:
                kept.append(element)
                continue
            first.add(cast(str, key))
            agent = self.after.agents.get(cast(str, key))
            if agent is not None and before.agents.get(agent.agent_id) is not agent:
                self._agent(agent, element, by_id)
            kept.append(element)
        for key, agent in self.after.agents.items():
            if key not in first:
                element = {}
                self._agent(agent, element, by_id)
                kept.append(element)
        listed[:] = kept
        self._hierarchy(before, gone)

    def _changed_agents(self, before: TaskState, listed: list[Any], by_id: dict[str, int]) -> None:
        """Write the changed agents if none was added or removed; most writes are such a report."""
        old = before.agents
        changed = {k: a for k, a in self.after.agents.items() if old[k] is not a}
        moved = any(old[k].parent != a.parent for k, a in changed.items())
        for element in listed:
            if not changed:
                break
            key = element.get("id") if isinstance(element, dict) else None
            agent = changed.pop(key, None) if isinstance(key, str) else None
            if agent is not None:  # the first one of its id: duplicates are left as they are
                self._agent(agent, element, by_id)
        for agent in changed.values():
            element = {}
            self._agent(agent, element, by_id)
            listed.append(element)
        if moved:
            self._hierarchy(before, set())

    def _agent(self, agent: Agent, element: Json, by_id: dict[str, int]) -> None:
        self.element(Kind.AGENT, agent, element)
        self._bind(element, agent.phase_index, by_id)

    def _bind(self, element: Json, index: int | None, by_id: dict[str, int]) -> None:
        """Set the phase of an element: by id in the library dialect, else by index."""
        if _bound(element, by_id) == index:
            return
        ids = {i: phase_id for phase_id, i in by_id.items()}
        if self.dialect is Dialect.LIBRARY and index in ids and "phase_index" not in element:
            element["phase_id"] = ids[index]
        else:
            element["phase_index"] = index

    def _hierarchy(self, before: TaskState, gone: set[str]) -> None:
        tree = self.document.get("agent_hierarchy")
        if not isinstance(tree, dict):
            return
        for key, agent in self.after.agents.items():
            old = before.agents.get(key)
            if old is not None and old.parent == agent.parent:
                continue
            children = tree.setdefault(agent.parent or "orchestrator", [])
            if isinstance(children, list) and key not in children:
                children.append(key)
        for children in tree.values():
            if gone and isinstance(children, list):
                children[:] = [c for c in children if not (isinstance(c, str) and c in gone)]

    def reviews(self, before: TaskState) -> None:
        if before.reviews == self.after.reviews and before.verdicts == self.after.verdicts:
            return
        listed = self.listed("reviews")
        by_id, first = self._by_id(), set[str]()
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
            _review(element, review.task_id, self.times, self.dialect, by_id) if element else None
        )
        if found != review:
            self.element(Kind.REVIEW, review, element, derived=_review_derived(element))
            if _bound(element, by_id) != review.phase_index:
                element["phase_index"] = review.phase_index
            if _reviewers(element) != review.reviewers:
                self._reviewers(review, element)
            now = _review(element, review.task_id, self.times, self.dialect, by_id)
            if now.verdict != review.verdict:
                element["final_verdict"] = review.verdict
        wanted = {
            v.verdict_id: v for v in self.after.verdicts.values() if v.review_id == review.review_id
        }
        now = _review(element, review.task_id, self.times, self.dialect, by_id)
        if {v.verdict_id: v for v in _verdicts(element, now, self.times, self.dialect)} != wanted:
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
            verdict = rest.pop(_verdict_id(item, review.review_id, place), None)
            if verdict is not None:
                self._verdict(verdict, item, len(kept))
                kept.append(item)
        for verdict in rest.values():
            item = {}
            self._verdict(verdict, item, len(kept))
            kept.append(item)
        element["verdicts"] = kept

    def _verdict(self, verdict: Verdict, item: Json, place: int) -> None:
        self.element(Kind.VERDICT, verdict, item)
        ours = ours_of(item)
        if verdict.verdict_id == f"{verdict.review_id[:120]}.{place}":
            ours.pop("verdict_id", None)
            if not ours:
                item.pop(OURS, None)

    def ours(self, before: TaskState) -> None:
        """Write what only our key can hold."""
        after = self.after
        ours = dict(ours_of(self.document))
        if after.handovers != before.handovers:
            listed = _objects(ours.get("handovers"))
            held = {h["handover_id"]: h for h in listed if is_id(h.get("handover_id"))}
            for key, handover in after.handovers.items():
                if before.handovers.get(key) != handover:
                    self.element(Kind.HANDOVER, handover, held.setdefault(key, {}))
            ours["handovers"] = [h for k, h in held.items() if k in after.handovers]
        orphans: list[Json] = []
        for verdict in after.verdicts.values():
            if verdict.review_id not in after.reviews:
                item: Json = {}
                self.element(Kind.VERDICT, verdict, item)
                orphans.append({"review_id": verdict.review_id, "verdict": item})
        ours["verdicts"] = orphans
        ours = {k: v for k, v in ours.items() if v not in ([], {})}
        if ours:
            self.document[OURS] = ours
        else:
            self.document.pop(OURS, None)

    def counters(self) -> None:
        """Correct the counters that the document has, and increase its version."""
        by_status = Counter(a.status for a in self.after.agents.values())
        counts = {
            "total_spawned": by_status.total(),
            "active_count": sum(by_status[s] for s in ACTIVE_AGENT),
            "completed_count": sum(by_status[s] for s in TERMINAL_AGENT),
            "failed_count": sum(by_status[s] for s in FAILED_AGENT),
        }
        for key, count in counts.items():
            if key in self.document:
                self.document[key] = count
        version = self.document.get("version")
        if type(version) is int:
            self.document["version"] = version + 1
