"""The health scan: compare agents' records with their processes and correct the differences.

A scan judges only the agents of its own host. It may run in any number of processes at once: each
correction is one transaction, which does nothing if the agent was changed since it was read.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

from orchestrator.agents import process_identity
from orchestrator.agents.deployment import process_of
from orchestrator.commands.processes import ended_by
from orchestrator.health.late_writes import late_writes
from orchestrator.rules.draft import extra_of
from orchestrator.service import Orchestrator
from registry_api import Agent, AgentStatus, Kind, RecordQuery, all_records
from registry_api.errors import RegistryError, TaskNotFound
from registry_api.plugins import Running
from registry_api.records import ACTIVE_AGENT

__all__ = ["HealthScan", "Scan"]

log = logging.getLogger("registry_backend")


@dataclass(frozen=True, slots=True, kw_only=True)
class Scan:
    """The corrections of a scan, each by agent id.

    ``ended``: agents whose process had ended, or had not been started; ``overdue``: agents that
    were stopped because they ran for longer than they may; ``stopped``: processes whose agent had
    ended; ``started``: reviewers whose owner had died before starting them. ``late_writes``:
    reports of late writes (by other programs, after the cut-over of a move) that nobody has dealt
    with; None if the scan did not look for them.
    """

    looked_at: int
    ended: tuple[str, ...] = ()
    overdue: tuple[str, ...] = ()
    stopped: tuple[str, ...] = ()
    started: tuple[str, ...] = ()
    late_writes: tuple[str, ...] | None = None

    @property
    def corrections(self) -> int:
        """How many records and processes were corrected."""
        return sum(map(len, (self.ended, self.overdue, self.stopped, self.started)))


class HealthScan:
    """The scan of one workspace.

    ``may_act`` is asked before each agent; ``actor`` is recorded with each correction.
    """

    def __init__(
        self,
        service: Orchestrator,
        *,
        may_act: Callable[[], bool] = lambda: True,
        actor: str = "orchestrator",
    ) -> None:
        self._service = service
        self._may_act = may_act
        self._actor = actor

    def run(self, task_id: str | None = None, *, late_writes: bool = True) -> Scan:
        """Check every active agent and every agent's process, of one task or of all.

        An agent whose process has ended is ended as its exit code and its log say. An agent that
        was not started is ended as failed, but a reviewer is started instead. An agent that has run
        for longer than ``max_runtime`` is ended and stopped; one that its conductor runs is ended
        after twice that time. A process whose agent has ended is stopped. Silence ends nobody. A
        scan of all tasks also looks for late writes, unless ``late_writes`` is false.
        """
        service = self._service
        if task_id is not None:
            service.store.load(task_id)  # raises TaskNotFound
        corrected: dict[str, list[str]] = {"ended": [], "overdue": [], "started": []}
        looked = 0
        query = RecordQuery(task_id=task_id, active=True)
        for agent in all_records(service.store, Kind.AGENT, query):
            assert isinstance(agent, Agent)
            looked += 1
            if not self._may_act():
                break
            try:
                what = self._check(agent)
            except RegistryError as error:  # of one agent: the scan continues
                log.warning("agent %s was not checked: %s", agent.agent_id, error)
                continue
            except Exception:  # as of a log that the agent has written
                log.exception("agent %s was not checked", agent.agent_id)
                continue
            if what is not None:
                corrected[what].append(agent.agent_id)
        return Scan(
            looked_at=looked,
            stopped=self._stop_orphans(task_id),
            late_writes=self._late_writes() if late_writes and task_id is None else None,
            **{what: tuple(agents) for what, agents in corrected.items()},
        )

    def _check(self, agent: Agent) -> str | None:
        """Correct one agent; returns what was done."""
        service, deployment = self._service, self._service.deployment
        found = deployment.process(agent)
        if found == "never started":
            if agent.review_id and service.take_over(agent, actor=self._actor):
                return "started"
            reason = "never started: its orchestrator died, or took longer than the launch deadline"
            return self._end(agent, AgentStatus.FAILED, reason, "ended")
        if found == "dead":
            files = deployment.files
            ended = ended_by(agent, files.exit_code(agent), files.result(agent))
            done = self._end(agent, *ended, "ended")
            if done:
                deployment.stop([agent])  # what it may have left running
            return done
        if self._is_overdue(agent, found):
            most = service.options.max_runtime
            reason = f"ran for longer than max_runtime, {most:g} s"
            if found == "external":
                reason = f"active for longer than twice max_runtime, {most:g} s"
            # A reviewer that failed is replaced.
            status = AgentStatus.FAILED if agent.review_id else AgentStatus.TERMINATED
            done = self._end(agent, status, reason, "overdue")
            if done:
                deployment.stop([agent])
            return done
        return None

    def _end(self, agent: Agent, status: AgentStatus, reason: str, what: str) -> str | None:
        ended = self._service.end_seen(agent, status, reason, actor=self._actor)
        return what if ended else None

    def _is_overdue(self, agent: Agent, found: str) -> bool:
        """Whether an agent runs for too long, by the clock since the boot of its machine: the time
        of day may be set.

        Of one that its conductor runs only the time of day is known: it has twice the time. One
        that no orchestrator reserved is a legacy program's, which judges it itself.
        """
        most = self._service.options.max_runtime
        if not most:
            return False
        if found == "external":
            if "agent_kind" not in extra_of(agent) or agent.started_at is None:
                return False
            return (self._service.now() - agent.started_at).total_seconds() > 2 * most
        if found != "alive":
            return False
        age = process_identity.age(process_of(agent) or "")
        if age is None:  # its process has ended, and one that it started is alive
            reserved = extra_of(agent).get("reserved_uptime")
            since = reserved if isinstance(reserved, (int, float)) else process_identity.uptime()
            age = process_identity.uptime() - since
        return age > most

    def _late_writes(self) -> tuple[str, ...] | None:
        try:
            return late_writes(self._service.settings)
        except (RegistryError, OSError) as error:  # as while a switch is under way
            log.info("late writes were not looked for: %s", error)
            return None

    def _stop_orphans(self, task_id: str | None) -> tuple[str, ...]:
        """Stop the processes whose agents have ended or have no record in their task.

        A process of an unknown task is left alone: its agent may be recorded in another store.
        """
        names = []
        for launcher in self._service.launchers.all().values():
            orphans = [
                found
                for found in launcher.running(self._service.settings.workspace)
                if task_id in {None, found.task_id} and self._is_orphan(found)
            ]
            if orphans and self._may_act():
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
        if agent is None:
            return True
        # One that no orchestrator started is not ours to stop: a person may run it in a terminal.
        return process_of(agent) is not None and self._long_ended(agent)

    def _long_ended(self, agent: Agent) -> bool:
        """Whether an agent ended more than ``end_grace`` ago, so its process can be stopped."""
        if agent.status in ACTIVE_AGENT:
            return False
        ended, service = agent.completed_at, self._service
        return ended is None or (service.now() - ended).total_seconds() > service.options.end_grace
