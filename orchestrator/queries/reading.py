"""The queries of the tools: they turn snapshots and pages into answers and change nothing."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from itertools import accumulate, islice
from math import isfinite
from typing import Any, TypeVar

from pydantic import BaseModel

from orchestrator.agents.agent_files import errors_name, log_name
from orchestrator.agents.deployment import host_name_of
from orchestrator.errors import NoHandover
from orchestrator.health.hosts import AWAY, Hosts
from orchestrator.queries.answers import (
    AgentLine,
    AgentOutput,
    ContextAnswer,
    FindingLine,
    FindingsPage,
    HandoverAnswer,
    HealthAnswer,
    HealthLine,
    PhaseAnswer,
    PhaseLine,
    ReviewAnswer,
    ReviewLine,
    TaskAnswer,
    TaskLine,
    TasksPage,
    VerdictLine,
)
from orchestrator.rules import context
from orchestrator.rules.agents import is_unverified
from orchestrator.rules.attempts import attempt_of, reason_of, retried_by
from orchestrator.rules.draft import Draft, extra_of
from orchestrator.rules.findings import passed_on
from orchestrator.rules.guidance import next_step
from orchestrator.rules.phases import DONE, all_done
from orchestrator.rules.reviews import critiques
from orchestrator.service import Orchestrator
from registry_api import (
    Agent,
    Finding,
    Handover,
    Kind,
    Page,
    Phase,
    PhaseStatus,
    Record,
    RecordQuery,
    Review,
    ReviewStatus,
    TaskQuery,
    TaskSnapshot,
    TaskStatus,
    TaskSummary,
    Verdict,
    all_records,
)
from registry_api.client import last_sign
from registry_api.errors import InvalidQuery
from registry_api.records import ACTIVE_AGENT, FAILED_AGENT, TERMINAL_AGENT, json_text
from registry_api.workspace import safe_paths as inside

__all__ = ["Reading"]

R = TypeVar("R")
V = TypeVar("V")
L = TypeVar("L", bound=BaseModel)

_CUT = 200  # characters of a text in a list
_LONG = 2000  # characters of a text that was asked for
_MOST_AGENTS = 20  # in one answer
_MOST_ENDED = 5
_PART = 14_000  # characters of one of several parts of an answer
_MOST = 60_000  # characters of the lines in one answer: the caller pays for each token
_HEALTHY = frozenset({"alive", "starting", "ending", "external", "elsewhere"})


class Reading:
    """The queries of one workspace."""

    def __init__(self, service: Orchestrator) -> None:
        self._service = service
        self._store = service.store

    def task(self, task_id: str) -> TaskAnswer:
        """Return the current state of a task; raises TaskNotFound."""
        return self.shown(self._store.load(task_id))

    def shown(self, snapshot: TaskSnapshot) -> TaskAnswer:
        """Return the answer for a snapshot."""
        task = snapshot.task
        active = [a for a in snapshot.agents if a.status in ACTIVE_AGENT]
        said = {e.agent_id: e.message for e in self._service.last_words(snapshot)}
        open_review = next(
            (r.review_id for r in snapshot.reviews if r.status is ReviewStatus.IN_PROGRESS), None
        )
        return TaskAnswer(
            task_id=task.task_id,
            status=snapshot.status,
            description=cut(task.description),
            priority=task.priority,
            silent=bool(active) and all(map(self._silent, active)),
            current_phase=task.current_phase_index,
            phases=[_phase_line(p) for p in snapshot.phases],
            agents_total=len(snapshot.agents),
            agents_active=[agent_line(a, said.get(a.agent_id)) for a in active[:_MOST_AGENTS]],
            agents_ended=[
                agent_line(a, said.get(a.agent_id)) for a in _ended_last(snapshot)[:_MOST_ENDED]
            ],
            agents_by_status=dict(Counter(str(a.status) for a in snapshot.agents)),
            open_review=open_review,
            next_step=self.next_step(snapshot),
        )

    def next_step(self, snapshot: TaskSnapshot) -> str:
        """Return the next step for a task."""
        return next_step(snapshot, auto_review=self._service.options.auto_review)

    def tasks(
        self,
        *,
        status: TaskStatus | None = None,
        text: str = "",
        cursor: str | None = None,
        limit: int = 20,
    ) -> TasksPage:
        """Return a page of tasks, newest first."""
        query = TaskQuery(status=status, text=text or None, newest_first=True)
        lines, following = _fitting(
            lambda most: self._store.list_tasks(query, after=cursor, limit=most), _task_line, limit
        )
        return TasksPage(
            tasks=lines,
            next_cursor=following,
            next_step=None if lines or status or text else "create_task creates the first one",
        )

    def output(
        self, task_id: str, agent_id: str, *, max_bytes: int, before: int | None
    ) -> AgentOutput:
        """Return the end of an agent's log, or the part before a position in it."""
        agent = self._service.agent(task_id, agent_id)
        workspace, name = self._service.settings.workspace, log_name(agent_id)
        data, start, size = inside.read_log(
            workspace, task_id, name, limit=max_bytes, before=before
        )
        text = data.decode("utf-8", "replace")
        while _written(text) > _MOST:
            start, data = start + len(data) // 2, data[len(data) // 2 :]
            text = data.decode("utf-8", "replace")
        errors, _, _ = inside.read_log(workspace, task_id, errors_name(agent_id), limit=_LONG)
        step = None
        if not size and not errors:
            step = f"It has printed nothing; resource task://{task_id}/progress has its reports"
        return AgentOutput(
            agent_id=agent_id,
            status=agent.status,
            text=text,
            start=start,
            size=size,
            errors=errors.decode("utf-8", "replace") or None,
            reason=reason_of(agent),
            next_step=step,
        )

    def findings(
        self,
        task_id: str,
        *,
        agent_id: str | None = None,
        severity: str | None = None,
        phase_index: int | None = None,
        since: datetime | None = None,
        text: str = "",
        cursor: str | None = None,
        limit: int = 20,
    ) -> FindingsPage:
        """Return a page of a task's findings, newest first; raises TaskNotFound."""
        if not self._store.head(task_id).revision:
            self._store.load(task_id)
        query = RecordQuery(
            task_id=task_id,
            agent_id=agent_id,
            severity=severity,
            phase_index=phase_index,
            since=since,
            text=text or None,
            newest_first=True,
        )
        lines, following = _fitting(
            lambda most: self._store.list_records(Kind.FINDING, query, after=cursor, limit=most),
            _finding_line,
            limit,
        )
        return FindingsPage(findings=lines, next_cursor=following)

    def phase(self, task_id: str, phase_index: int | None = None) -> PhaseAnswer:
        """Return the state of a phase, the current one without an index; raises PhaseNotFound."""
        snapshot = self._store.load(task_id)
        draft = Draft(snapshot)
        phase = draft.phase(phase_index)
        bound = draft.bound(phase.phase_index)
        active = [a.agent_id for a in bound if a.status in ACTIVE_AGENT]
        completed = sum(a.status in DONE for a in bound)
        reviews = _newest(snapshot, phase.phase_index)
        escalated = phase.status is PhaseStatus.ESCALATED
        reason = extra_of(phase).get("escalation_reason") if escalated else None
        return PhaseAnswer(
            task_id=task_id,
            task_status=snapshot.status,
            index=phase.phase_index,
            name=cut(phase.name),
            status=phase.status,
            total_phases=len(snapshot.phases),
            description=cut(phase.description) or None,
            revision_round=phase.revision_round or None,
            agents_active=active[:_MOST_AGENTS],
            agents_completed=completed,
            agents_failed=len(bound) - len(active) - completed,
            failures=[
                f"{a.agent_id}: {reason_of(a) or a.status}"
                for a in bound
                if a.status in FAILED_AGENT
            ][:_MOST_ENDED],
            all_agents_done=all_done(draft, phase),
            review=_review_line(snapshot, reviews[0], whole=False) if reviews else None,
            escalation_reason=reason if isinstance(reason, str) else None,
            next_step=self.next_step(snapshot),
        )

    def reviews(
        self, task_id: str, *, review_id: str | None = None, phase_index: int | None = None
    ) -> ReviewAnswer:
        """Return one review in full, or the reviews of a phase or the task, newest first."""
        snapshot = self._store.load(task_id)
        return self.reviewed(snapshot, review_id=review_id, phase_index=phase_index)

    def reviewed(
        self, snapshot: TaskSnapshot, *, review_id: str | None, phase_index: int | None = None
    ) -> ReviewAnswer:
        """Return the answer for a snapshot; raises ReviewNotFound."""
        if review_id is not None:
            found = [Draft(snapshot).review(review_id)]
        else:
            if phase_index is not None:
                Draft(snapshot).phase(phase_index)
            found = _newest(snapshot, phase_index)[:10]
        phase = snapshot.phase(found[0].phase_index or 0) if found else None
        return ReviewAnswer(
            task_id=snapshot.task.task_id,
            phase_index=phase.phase_index if phase else None,
            phase_status=phase.status if phase else None,
            reviews=[_review_line(snapshot, r, whole=i == 0) for i, r in enumerate(found)],
            next_step=self.next_step(snapshot),
        )

    def handover(self, task_id: str, phase_index: int | None = None) -> HandoverAnswer:
        """Return a phase's handover, the newest one without an index; raises NoHandover."""
        newest = self.newest_handover(self._store.load(task_id), phase_index)
        artifacts = _plain(newest.artifacts)
        return HandoverAnswer(
            from_phase=newest.from_phase_index,
            to_phase=newest.to_phase_index,
            summary=_cut_written(newest.summary, _PART),
            key_findings=_first(newest.key_findings),
            blockers=_first(newest.blockers),
            recommendations=_first(newest.recommendations),
            artifacts=_first(a for a in artifacts if isinstance(a, dict)),
        )

    @staticmethod
    def newest_handover(snapshot: TaskSnapshot, phase_index: int | None = None) -> Handover:
        """Return the newest handover, or that of a phase; raises NoHandover."""
        fits = [
            h
            for h in snapshot.handovers
            if phase_index is None or h.from_phase_index == phase_index
        ]
        if not fits:
            which = "no phase has a" if phase_index is None else f"phase {phase_index} has no"
            raise NoHandover(
                f"task {snapshot.task.task_id}: {which} handover yet",
                next_step="A phase gets one when it is approved; see get_phase_status",
            )
        return max(fits, key=lambda h: h.created_at)

    def context(
        self, task_id: str, *, phase_index: int | None = None, max_tokens: int = 2000
    ) -> ContextAnswer:
        """Return what an agent must know, within a budget of tokens (four characters each)."""
        snapshot = self._store.load(task_id)
        if phase_index is not None:
            Draft(snapshot).phase(phase_index)
        query = RecordQuery(task_id=task_id, newest_first=True)
        in_turn = all_records(self._store, Kind.FINDING, query)
        findings = list(islice(passed_on(snapshot, in_turn), 200))
        while True:
            found = context.accumulate(
                snapshot, findings, max_tokens=max_tokens, phase_index=phase_index
            )
            if _written(found.text) <= _MOST or max_tokens < 2:
                break
            max_tokens //= 2  # escapes make it longer; a cut of the text would open a quote
        return ContextAnswer(task_id=task_id, text=found.text, left_out=list(found.left_out))

    def health(self, task_id: str | None = None) -> HealthAnswer:
        """Compare the records of active agents with their processes; changes nothing."""
        lines: list[HealthLine] = []
        silence: dict[tuple[str, str], float] = {}  # seconds of each line's agent
        active, hosts = 0, Hosts(self._store)
        if task_id is not None:
            self._store.load(task_id)  # raises TaskNotFound
        query = RecordQuery(task_id=task_id, active=True)
        for agent in all_records(self._store, Kind.AGENT, query):
            assert isinstance(agent, Agent)
            active += 1
            process = hosts.process(agent, self._service.deployment)
            silent = self._silent(agent)
            if process in _HEALTHY and not silent:
                continue
            sign = last_sign(agent, now=self._service.now())
            seconds = (self._service.now() - sign).total_seconds() if sign else math.inf
            silence[agent.task_id, agent.agent_id] = seconds if silent else 0.0
            lines.append(
                HealthLine(
                    task_id=agent.task_id,
                    agent_id=agent.agent_id,
                    status=agent.status,
                    process=process,
                    host=host_name_of(agent) if process in AWAY else None,
                    silent_seconds=int(seconds) if silent and sign else None,
                )
            )
        lines.sort(key=lambda line: -silence[line.task_id, line.agent_id])
        wrong = any(line.process not in _HEALTHY | {"lost"} for line in lines)
        return HealthAnswer(
            active_agents=active,
            healthy=active - len(lines),
            agents=lines[:_MOST_AGENTS],
            next_step="trigger_health_scan corrects the agents without a process"
            if wrong
            else None,
        )

    def _silent(self, agent: Agent) -> bool:
        sign = last_sign(agent, now=self._service.now())
        after = timedelta(seconds=self._service.settings.silent_after)
        return sign is None or self._service.now() - sign > after


def _fitting(
    fetch: Callable[[int], Page[R]], line_of: Callable[[R], L], limit: int
) -> tuple[list[L], str | None]:
    """Return the lines of a page that fit into one answer, and the cursor of the next page."""
    while True:
        try:
            page = fetch(limit)
        except InvalidQuery as error:
            step = "Pass next_cursor of an earlier answer unchanged, or no cursor"
            raise InvalidQuery(error.message, next_step=step) from None
        lines = [line_of(item) for item in page.items]
        sizes = accumulate(_written(line.model_dump()) for line in lines)
        fit = max(1, sum(size <= _MOST for size in sizes))
        if fit >= len(lines):
            return lines, page.next
        limit = fit  # read again: only the store can make a cursor


def _written(value: Any) -> int:
    """Return how many characters a JSON value takes: escapes make a text up to six times longer."""
    return len(json_text.dump_text(value))


def _cut_written(text: str, most: int) -> str:
    """Return the beginning of a text that takes at most this many characters as JSON."""
    while _written(text) > most:
        text = text[: len(text) // 2] + "…"
    return text


def _first(values: Iterable[V]) -> list[V]:
    """Return the first values, as many as fit into their part of an answer."""
    kept = list(values)
    sizes = accumulate(map(_written, kept))
    return kept[: sum(size <= _PART for size in sizes)]


def cut(text: str, most: int = _CUT) -> str:
    """Return a text, cut to ``most`` characters."""
    return text if len(text) <= most else text[: most - 1] + "…"


def _plain(text: str) -> Any:
    """Return a JSON text's value with Python's own numbers; a number that none can hold is text."""
    return json.loads(text, parse_float=lambda said: float(said) if isfinite(float(said)) else said)


def _within(value: Any) -> Any:
    """Return a JSON value, or the beginning of its text if that is long."""
    text = json_text.dump_text(value)
    return _plain(text) if len(text) <= _LONG else cut(text, _LONG)


def agent_line(agent: Agent, message: str | None = None) -> AgentLine:
    """Return an agent's line."""
    return AgentLine(
        agent_id=agent.agent_id,
        type=agent.type,
        status=agent.status,
        progress=agent.progress,
        phase_index=agent.phase_index,
        parent=None if agent.parent == "orchestrator" else agent.parent,
        last_update=agent.last_update.isoformat() if agent.last_update else None,
        message=cut(message) if message else None,
        reason=reason_of(agent),
        unverified=is_unverified(agent),
        attempt=attempt if (attempt := attempt_of(agent)) > 1 else None,
        retried_by=retried_by(agent),
    )


def _ended_last(snapshot: TaskSnapshot) -> list[Agent]:
    ended = [a for a in snapshot.agents if a.status in TERMINAL_AGENT]
    return sorted(ended, key=lambda a: (str(a.completed_at), a.agent_id), reverse=True)


def _phase_line(phase: Phase) -> PhaseLine:
    return PhaseLine(
        index=phase.phase_index,
        name=cut(phase.name),
        status=phase.status,
        revision_round=phase.revision_round or None,
    )


def _task_line(task: TaskSummary) -> TaskLine:
    return TaskLine(
        task_id=task.task_id,
        description=cut(task.description),
        status=task.status,
        agents=task.agents,
        active_agents=task.active_agents,
        created_at=task.created_at.isoformat(),
    )


def _finding_line(finding: Record) -> FindingLine:
    assert isinstance(finding, Finding)
    data = json_text.parse_trusted(finding.data.encode())
    return FindingLine(
        finding_id=finding.finding_id,
        agent_id=finding.agent_id,
        type=finding.finding_type,
        severity=finding.severity,
        message=cut(finding.message, _LONG),
        at=finding.timestamp.isoformat(),
        phase_index=finding.phase_index,
        data=_within(data) or None,
    )


def _newest(snapshot: TaskSnapshot, phase_index: int | None) -> list[Review]:
    found = [r for r in snapshot.reviews if phase_index is None or r.phase_index == phase_index]
    return sorted(found, key=lambda r: (r.created_at, r.review_id), reverse=True)


def _review_line(snapshot: TaskSnapshot, review: Review, *, whole: bool) -> ReviewLine:
    verdicts = [v for v in snapshot.verdicts if v.review_id == review.review_id]
    said = {v.reviewer_id for v in verdicts}
    live = {a.agent_id for a in snapshot.agents if a.status in ACTIVE_AGENT}
    agents = {a.agent_id: a for a in snapshot.agents}

    def unproven(reviewer_id: str | None) -> bool:
        reviewer = agents.get(reviewer_id or "")
        return reviewer is None or is_unverified(reviewer)

    extra = extra_of(review)
    reason = extra.get("abort_reason") or extra.get("failure_reason")
    return ReviewLine(
        review_id=review.review_id,
        phase_index=review.phase_index,
        status=review.status,
        verdict=review.verdict,
        reason=reason if isinstance(reason, str) else None,
        waiting_for=[r for r in review.reviewers if r not in said and r in live],
        verdicts=[
            VerdictLine(
                reviewer_id=v.reviewer_id,
                verdict=v.verdict,
                notes=cut(v.notes, _LONG) or None if whole else None,
                findings=_said(v) if whole else None,
                unverified=unproven(v.reviewer_id),
            )
            for v in verdicts
        ],
        critiques=[_within(c) for c in critiques(review)] if whole else [],
    )


def _said(verdict: Verdict) -> list[Any] | None:
    found = _within(json_text.parse_trusted(verdict.findings.encode()))
    return [found] if isinstance(found, str) else found or None
