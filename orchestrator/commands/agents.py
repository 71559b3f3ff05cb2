"""Deploy and kill agents."""

from __future__ import annotations

import uuid
from functools import partial

from orchestrator import prompts
from orchestrator.agents.deployment import Deployment
from orchestrator.commands.processes import Processes
from orchestrator.commands.transactions import Transactions
from orchestrator.errors import AgentEnded
from orchestrator.rules import agents
from orchestrator.settings import OrchestratorSettings
from registry_api import Agent, AgentStatus, Kind, Refs
from registry_api.errors import InvalidInput
from registry_api.records import TERMINAL_AGENT, is_text

__all__ = ["AgentCommands"]

_TASK = Refs(kinds=frozenset({Kind.TASK}))


class AgentCommands:
    """The commands on agents."""

    def __init__(
        self,
        transactions: Transactions,
        processes: Processes,
        deployment: Deployment,
        options: OrchestratorSettings,
    ) -> None:
        self._transactions = transactions
        self._store = transactions.store
        self._now = transactions.now
        self._processes = processes
        self._deployment = deployment
        self._options = options

    def deploy(
        self,
        task_id: str,
        agent_type: str,
        prompt: str,
        *,
        parent: str = agents.ORCHESTRATOR,
        phase_index: int | None = None,
        kind: str | None = None,
        model: str | None = None,
        effort: str | None = None,
    ) -> Agent:
        """Reserve an agent and start it; raises the errors of the rules and of the launch.

        If the agent cannot be started, its reservation is removed. Raises AgentEnded if it was
        ended in the meantime.
        """
        _refuse_unstorable(prompt)
        at = self._now()
        order = self._deployment.order(
            kind or self._options.default_kind,
            model=model,
            effort=effort,
            cwd=self._store.load(task_id, only=_TASK).task.client_cwd,
        )
        agent_id = f"{agent_type}-{at:%H%M%S}-{uuid.uuid4().hex[:6]}"
        command = agents.DeployAgent(
            agent_id=agent_id,
            agent_type=agent_type,
            prompt=prompt,
            at=at,
            limits=self._options.limits,
            parent=parent,
            phase_index=phase_index,
            model=order.model,
            kind=order.kind,
            owner=None if order.external else self._processes.owner,
        )
        self._processes.run(task_id, lambda s: agents.deploy(s, command), actor="deploy_agent")
        said = prompts.worker(task_id, agent_id) if order.preamble else ""
        text = (prompts.preamble(said) if said else "") + prompt
        try:
            self._processes.start(task_id, agent_id, order, text)
        except AgentEnded:
            raise
        except Exception:
            self._transactions.with_retry(partial(self._take_back, task_id, agent_id))
            raise
        return self._transactions.agent(task_id, agent_id)

    def kill(self, task_id: str, agent_id: str, reason: str) -> Agent:
        """Terminate an agent and stop its process; raises AgentNotFound or AgentEnded."""
        agent = self._transactions.agent(task_id, agent_id)
        if agent.status in TERMINAL_AGENT:
            self._deployment.stop([agent])
            raise AgentEnded(
                f"agent {agent_id} is {agent.status}",
                next_step="get_task_status shows the next step",
                status=str(agent.status),
            )
        self._processes.end(task_id, agent_id, AgentStatus.TERMINATED, reason)
        agent = self._transactions.agent(task_id, agent_id)
        self._deployment.stop([agent])
        return agent

    def _take_back(self, task_id: str, agent_id: str) -> None:
        """Remove the reservation of an agent that never ran."""
        self._processes.run(task_id, lambda s: agents.take_back(s, agent_id), actor="deploy_agent")


def _refuse_unstorable(prompt: str) -> None:
    """Raise InvalidInput for a prompt that cannot be passed on unchanged."""
    if not is_text(prompt):
        raise InvalidInput("the prompt contains U+0000 or a lone surrogate", next_step="Remove it")
