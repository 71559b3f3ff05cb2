"""The health scan: compare agents' records with their processes and correct the differences."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from orchestrator.commands.processes import ended_by
from orchestrator.service import Orchestrator
from registry_api import Agent, AgentStatus, Kind, RecordQuery, all_records
from registry_api.errors import RegistryError, TaskNotFound
from registry_api.plugins import Running
from registry_api.records import ACTIVE_AGENT

__all__ = ["HealthScan", "Scan"]

log = logging.getLogger("registry_backend")
_GONE = {
    "dead": "its process ended without a final report",
    "abandoned": "the orchestrator died before starting it",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Scan:
    """The corrections of a scan, each by agent id.

    ``ended``: agents whose process had ended; ``stopped``: processes whose agent had ended;
    ``started``: reviewers whose owner had died before starting them.
    """

    looked_at: int
    ended: tuple[str, ...] = ()
    stopped: tuple[str, ...] = ()
    started: tuple[str, ...] = ()


class HealthScan:
    """The scan of one workspace; any number of processes may scan at once."""

    def __init__(self, service: Orchestrator) -> None:
        self._service = service
        self._launchers = service.launchers

    def run(self, task_id: str | None = None) -> Scan:
        """Check every active agent and every agent's process, of one task or of all.

        An agent whose process has ended is ended as its exit code says, or as failed if the code is
        unknown. An agent whose owner died before starting it is ended as failed, but a reviewer is
        started instead. A process whose agent has ended is stopped.
        """
        service = self._service
        if task_id is not None:
            service.store.load(task_id)  # raises TaskNotFound
        ended, started, looked = [], [], 0
        query = RecordQuery(task_id=task_id, active=True)
        for agent in all_records(service.store, Kind.AGENT, query):
            assert isinstance(agent, Agent)
            looked += 1
            try:
                found = service.deployment.process(agent)
                if found == "abandoned" and agent.review_id and service.take_over(agent):
                    started.append(agent.agent_id)
                elif found in _GONE and service.end_seen(agent, *self._end_of(agent, found)):
                    ended.append(agent.agent_id)
            except RegistryError as error:  # of one agent: the scan continues
                log.warning("agent %s was not checked: %s", agent.agent_id, error)
        return Scan(
            looked_at=looked,
            ended=tuple(ended),
            stopped=self._stop_orphans(task_id),
            started=tuple(started),
        )

    def _end_of(self, agent: Agent, found: str) -> tuple[AgentStatus, str]:
        """Return how an agent ended: by its exit code, if that was recorded."""
        code = self._service.deployment.exit_code(agent) if found == "dead" else None
        return (AgentStatus.FAILED, _GONE[found]) if code is None else ended_by(agent, code)

    def _stop_orphans(self, task_id: str | None) -> tuple[str, ...]:
        """Stop the processes whose agents have ended or have no record in their task.

        A process of an unknown task is left alone: its agent may be recorded in another store.
        """
        names = []
        for launcher in self._launchers.all().values():
            orphans = [
                found
                for found in launcher.running(self._service.settings.workspace)
                if task_id in {None, found.task_id} and self._is_orphan(found)
            ]
            if orphans:
                grace = self._service.options.stop_grace
                launcher.stop([orphan.identity for orphan in orphans], grace=grace)
                names += [orphan.agent_id for orphan in orphans]
        return tuple(names)

    def _is_orphan(self, found: Running) -> bool:
        if found.own:
            return False  # an agent's own server must not stop its session during an answer
        try:
            agent = self._service.find_agent(found.task_id, found.agent_id)
        except TaskNotFound:
            return False
        return agent is None or self._long_ended(agent)

    def _long_ended(self, agent: Agent) -> bool:
        """Whether an agent ended more than ``end_grace`` ago, so its process can be stopped."""
        if agent.status in ACTIVE_AGENT:
            return False
        ended, service = agent.completed_at, self._service
        return ended is None or (service.now() - ended).total_seconds() > service.options.end_grace
