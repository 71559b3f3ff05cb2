"""Read the records of a task from a whole document."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import cast

from backends.files import Problem
from backends.json_files.legacy.lens.binding import (
    bound_phase,
    current_phase,
    objects_in,
    phase_index_of,
)
from backends.json_files.legacy.lens.dialects import Dialect, dialect_of
from backends.json_files.legacy.lens.element import (
    Json,
    ours_of,
    read_element,
)
from backends.json_files.legacy.lens.reviews import read_review, read_verdicts, verdict_id_of
from backends.jsonl.times import Times
from registry_api.records import (
    Agent,
    Handover,
    Kind,
    Phase,
    Task,
    TaskState,
    Verdict,
    is_id,
    json_text,
)

__all__ = ["decode"]

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
            review = read_review(element, task_id, times, dialect, by_id)
            state.reviews[review.review_id] = review
            for verdict in read_verdicts(element, review, times, dialect):
                if verdict.verdict_id in state.verdicts:
                    reader.problem(f"verdict {verdict.verdict_id} occurs twice, read once")
                    continue
                state.verdicts[verdict.verdict_id] = verdict
    _read_ours(reader, state, dialect)
    return state


def _task(reader: _Reader, dialect: Dialect, by_id: dict[str, int]) -> Task:
    document = reader.document
    fixed: Json = {"task_id": reader.task_id, "current_phase_index": current_phase(document, by_id)}
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


def _phases(reader: _Reader, dialect: Dialect) -> dict[int, Phase]:
    out: dict[int, Phase] = {}
    for place, element in reader.elements("phases"):
        index = phase_index_of(place, element)
        if index in out:
            reader.problem(f"phases[{place}] repeats phase {index}, not read")
            continue
        fixed: Json = {"task_id": reader.task_id, "phase_index": index}
        phase = read_element(Kind.PHASE, element, dialect=dialect, times=reader.times, **fixed)
        out[index] = cast(Phase, phase)
        reader.unknown_words(f"phases[{place}]", out[index])
    return out


def _agent(
    element: Json, task_id: str, times: Times, dialect: Dialect, by_id: dict[str, int]
) -> Agent:
    fixed: Json = {"task_id": task_id, "phase_index": bound_phase(element, by_id)}
    return cast(Agent, read_element(Kind.AGENT, element, dialect=dialect, times=times, **fixed))


def _read_ours(reader: _Reader, state: TaskState, dialect: Dialect) -> None:
    """Read what only our key can hold: handovers, and verdicts whose review is missing."""
    ours = ours_of(reader.document)
    for item in objects_in(ours.get("handovers")):
        if is_id(item.get("handover_id")):
            handover = read_element(
                Kind.HANDOVER, item, dialect=dialect, times=reader.times, task_id=reader.task_id
            )
            assert isinstance(handover, Handover)
            state.handovers[handover.handover_id] = handover
    for item in objects_in(ours.get("verdicts")):
        said, review_id = item.get("verdict"), item.get("review_id")
        if isinstance(said, dict) and is_id(review_id):
            verdict = read_element(
                Kind.VERDICT,
                said,
                dialect=dialect,
                times=reader.times,
                task_id=reader.task_id,
                review_id=review_id,
                verdict_id=verdict_id_of(said, cast(str, review_id), -1),
            )
            assert isinstance(verdict, Verdict)
            state.verdicts[verdict.verdict_id] = verdict
