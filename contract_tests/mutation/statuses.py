"""Mutants with wrong statuses, counts or heads."""

from __future__ import annotations

from dataclasses import replace

from contract_tests.mutation.base import _again, mutant
from registry_api import (
    AgentStatus,
    Changeset,
    Commit,
    Head,
    Put,
    RegistryCounts,
    RegistryStore,
)
from registry_api.records import ProgressEntry
from registry_api.wrappers import StoreWrapper


@mutant
class CountDrift(StoreWrapper):
    """Increments the count of running agents and never decrements it."""

    def __init__(self, inner: RegistryStore) -> None:
        super().__init__(inner)
        self._most = 0

    def counts(self) -> RegistryCounts:
        found = self.inner.counts()
        running = found.agents.get(AgentStatus.RUNNING, 0)
        self._most = max(self._most, running)
        if self._most > running:
            return replace(found, agents={**found.agents, AgentStatus.RUNNING: self._most})
        return found


@mutant
class DeadRevived(StoreWrapper):
    """Reopens an ended agent when a late report arrives."""

    def commit(self, changeset: Changeset) -> Commit:
        done = self.inner.commit(changeset)
        for op in changeset.ops:
            if isinstance(op, Put) and isinstance(op.record, ProgressEntry):
                snapshot = self.inner.load(changeset.task_id)
                for agent in snapshot.agents:
                    ended = agent.status in {AgentStatus.COMPLETED, AgentStatus.FAILED}
                    if ended and agent.agent_id == op.record.agent_id:
                        back = Put(replace(agent, status=AgentStatus.RUNNING))
                        return self.inner.commit(
                            _again(changeset, ops=[back], expected=done.revision)
                        )
        return done


@mutant
class HeadBehind(StoreWrapper):
    """Returns a task's head as it was one commit ago."""

    def __init__(self, inner: RegistryStore) -> None:
        super().__init__(inner)
        self._before: dict[str, Head] = {}

    def commit(self, changeset: Changeset) -> Commit:
        self._before[changeset.task_id] = self.inner.head(changeset.task_id)
        return self.inner.commit(changeset)

    def head(self, task_id: str) -> Head:
        return self._before.get(task_id) or self.inner.head(task_id)


@mutant
class ReportsEndAgents(StoreWrapper):
    """Ends an agent when a report says ``completed``."""

    def commit(self, changeset: Changeset) -> Commit:
        done = self.inner.commit(changeset)
        for op in changeset.ops:
            entry = op.record if isinstance(op, Put) else None
            if isinstance(entry, ProgressEntry) and entry.status == "completed":
                agent = self.inner.load(changeset.task_id).agent(entry.agent_id)
                if agent is not None:
                    ended = Put(replace(agent, status=AgentStatus.COMPLETED))
                    again = _again(changeset, ops=[ended], expected=done.revision)
                    return self.inner.commit(again)
        return done
