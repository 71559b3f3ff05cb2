"""Take in what agents report and find."""

from __future__ import annotations

import uuid
from dataclasses import replace
from datetime import datetime
from typing import NoReturn

from orchestrator.commands.processes import Processes
from orchestrator.commands.transactions import Transactions
from orchestrator.errors import AgentEnded
from orchestrator.rules import agents, findings, progress
from registry_api import Agent, Finding, ProgressEntry, Put
from registry_api.records import ACTIVE_AGENT

__all__ = ["ReportCommands"]


class ReportCommands:
    """The commands by which agents report."""

    def __init__(self, transactions: Transactions, processes: Processes) -> None:
        self._transactions = transactions
        self._now = transactions.now
        self._processes = processes

    def report(
        self,
        task_id: str,
        agent_id: str,
        status: str,
        message: str,
        progress_percent: int,
        *,
        at: datetime | None = None,
    ) -> Agent:
        """Append a report; a terminal status ends the agent and may open its phase's review.

        Raises AgentEnded if the agent had already ended; the report is kept in the history.
        """
        at = at or self._now()
        entry = ProgressEntry(
            task_id=task_id,
            entry_id=uuid.uuid4().hex,
            agent_id=agent_id,
            timestamp=at,
            status=status,
            message=message,
            progress=progress_percent,
        )
        said = progress.reported(status)
        snapshot = self._transactions.only(task_id, agent_id)
        done = progress.report(snapshot, entry)
        if done.late:
            self._keep_late(entry, done.late)
        if said in ACTIVE_AGENT:
            self._transactions.commit(task_id, done.ops, expected=None, actor=agent_id)
            agent = snapshot.agent(agent_id)
            assert agent is not None
            return replace(agent, status=said, progress=progress_percent, last_update=at)
        command = self._processes.ending(agent_id, said, None)
        command = replace(command, progress=progress_percent, by_report=True)
        try:
            self._processes.run(
                task_id, lambda s: (*done.ops, *agents.end(s, command)), actor=agent_id
            )
        except AgentEnded as error:  # it ended between our read and this
            self._keep_late(entry, error.fields["status"])
        return self._transactions.agent(task_id, agent_id)

    def _keep_late(self, entry: ProgressEntry, status: object) -> NoReturn:
        """Keep the report of an agent that had ended, and refuse it."""
        self._transactions.commit(entry.task_id, (Put(entry),), expected=None, actor=entry.agent_id)
        raise AgentEnded(
            f"agent {entry.agent_id} is {status}: the report is kept but changes nothing",
            next_step="Stop: an agent that has ended cannot continue",
            status=str(status),
        )

    def add_finding(
        self,
        task_id: str,
        agent_id: str,
        message: str,
        *,
        finding_type: findings.FindingType,
        severity: findings.Severity,
        data: str = "{}",
    ) -> Finding:
        """Append a finding.

        Raises AgentNotFound, and AgentEnded if somebody has ended the agent; the finding is kept.
        """
        finding = Finding(
            task_id=task_id,
            finding_id=uuid.uuid4().hex,
            agent_id=agent_id,
            timestamp=self._now(),
            finding_type=finding_type,
            severity=severity,
            message=message,
            data=data,
        )
        agent, ops = findings.add_finding(self._transactions.only(task_id, agent_id), finding)
        self._transactions.commit(task_id, ops, expected=None, actor=agent_id)
        if agent.status in findings.ENDED_BY_OTHERS:
            raise AgentEnded(
                f"agent {agent_id} is {agent.status}: the finding is kept, but not passed on",
                next_step="Stop: an agent that has ended cannot continue",
                status=str(agent.status),
            )
        return finding
