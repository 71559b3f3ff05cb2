"""Write the changed records of a task into a whole document: ``encode(decode(d), d) == d``."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any, cast

from backends.json_files.legacy.lens.binding import (
    bound_phase,
    current_phase,
    objects_in,
    phase_index_of,
)
from backends.json_files.legacy.lens.dialects import DEFAULTS, OURS, Dialect, dialect_of
from backends.json_files.legacy.lens.element import (
    Json,
    ours_of,
    write_element,
)
from backends.json_files.legacy.lens.reviews import ReviewWriter
from backends.jsonl.times import Times
from registry_api.records import (
    ACTIVE_AGENT,
    FAILED_AGENT,
    TERMINAL_AGENT,
    Agent,
    Kind,
    Phase,
    TaskState,
    is_id,
)

__all__ = ["encode"]


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
        if current_phase(self.document, by_id) != task.current_phase_index:
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
            index = phase_index_of(place, element) if isinstance(element, dict) else None
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
        if bound_phase(element, by_id) == index:
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
        after = self.after
        if before.reviews != after.reviews or before.verdicts != after.verdicts:
            reviews = ReviewWriter(after, self._by_id(), self.times, self.dialect)
            reviews.write(before, self.listed("reviews"))

    def ours(self, before: TaskState) -> None:
        """Write what only our key can hold."""
        after = self.after
        ours = dict(ours_of(self.document))
        if after.handovers != before.handovers:
            listed = objects_in(ours.get("handovers"))
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
