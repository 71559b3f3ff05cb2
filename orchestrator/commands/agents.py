"""Deploy and kill agents."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from functools import partial

from orchestrator import prompts
from orchestrator.agents import process_identity
from orchestrator.agents.deployment import Deployment
from orchestrator.commands.processes import Processes
from orchestrator.commands.transactions import Transactions
from orchestrator.errors import AgentEnded, LaunchFailed, NotRetryable
from orchestrator.rules import agents, context
from orchestrator.rules.attempts import retry_of
from orchestrator.rules.draft import extra_of
from orchestrator.settings import OrchestratorSettings
from registry_api import Agent, AgentStatus
from registry_api.errors import InvalidInput
from registry_api.plugins import Stopped
from registry_api.records import ACTIVE_AGENT, TERMINAL_AGENT, is_id, is_text

__all__ = ["AgentCommands", "Killed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Killed:
    """An agent that was ended, and what was found of its processes."""

    agent: Agent
    stopped: tuple[Stopped, ...]


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
        retry_of: str | None = None,
    ) -> Agent:
        """Reserve an agent and start it; raises the errors of the rules and of the launch.

        If the agent cannot be started, its reservation is removed. Raises AgentEnded if it was
        ended in the meantime. ``retry_of``: the failed agent whose work it does again.
        """
        _refuse_unstorable(prompt)
        at, snapshot = self._now(), self._store.load(task_id)
        order = self._deployment.order(
            kind or self._options.default_kind,
            model=model,
            effort=effort,
            cwd=snapshot.task.client_cwd,
        )
        agent_id = f"{agent_type}-{at:%H%M%S}-{uuid.uuid4().hex[:6]}"
        preamble = ""
        if order.preamble:
            told = (prompts.worker(task_id, agent_id), context.handed_over(snapshot, phase_index))
            preamble = prompts.preamble("\n\n".join(filter(None, told)))
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
            effort=order.effort,
            owner=None if order.external else self._processes.owner,
            uptime=None if order.external else process_identity.uptime(),
            retry_of=retry_of,
            prompt_at=len(preamble),
        )
        self._processes.run(task_id, lambda s: agents.deploy(s, command), actor="deploy_agent")
        try:
            self._processes.start(task_id, agent_id, order, preamble + prompt)
        except AgentEnded:
            raise
        except Exception:
            self._transactions.with_retry(partial(self._take_back, task_id, agent_id))
            raise
        return self._transactions.agent(task_id, agent_id)

    def kill(self, task_id: str, agent_id: str, reason: str) -> Killed:
        """Terminate an agent and stop its process; raises AgentNotFound or AgentEnded.

        The process of an agent that had ended is stopped, too.
        """
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
        return Killed(agent=agent, stopped=self._deployment.stop([agent]))

    def retry(self, task_id: str, agent_id: str) -> Agent:
        """Start a failed agent's work again, as the next attempt with the same prompt.

        Raises NotRetryable if it has not failed or was retried, and as ``deploy``.
        """
        failed = self._transactions.agent(task_id, agent_id)
        if failed.review_id is not None:
            raise NotRetryable(
                f"{agent_id} is a reviewer",
                next_step="Reviewers that die are replaced; submit_phase_for_review opens another "
                "review of an escalated phase",
                status=str(failed.status),
            )
        extra = extra_of(failed)
        if "process" not in extra and extra.get("reserved_by") is None:
            raise NotRetryable(
                f"no orchestrator started {agent_id}",
                next_step="deploy_agent with kind external and the prompt",
                status=str(failed.status),
            )
        parent = failed.parent or agents.ORCHESTRATOR
        above = self._transactions.find_agent(task_id, parent) if is_id(parent) else None
        return self.deploy(
            task_id,
            failed.type,
            self._prompt_of(failed),
            parent=parent if above and above.status in ACTIVE_AGENT else agents.ORCHESTRATOR,
            phase_index=failed.phase_index,
            kind=_text(extra.get("agent_kind")),
            model=failed.model,
            effort=_text(extra.get("effort")),
            retry_of=agent_id,
        )

    def _prompt_of(self, agent: Agent) -> str:
        """Return the prompt that an agent was deployed with.

        A retry that was never started has none; its prompt is that of the attempt before it.
        """
        one: Agent | None = agent
        looked_at = set[str]()
        while one is not None and one.agent_id not in looked_at:
            text = self._deployment.files.prompt(one)
            if text is not None:
                return self._without_preamble(one, text)
            looked_at.add(one.agent_id)
            before = retry_of(one)
            one = self._transactions.find_agent(agent.task_id, before) if before else None
        raise LaunchFailed(
            f"the prompt of {agent.agent_id} was removed", next_step="deploy_agent with the prompt"
        )

    @staticmethod
    def _without_preamble(agent: Agent, text: str) -> str:
        begin = extra_of(agent).get("prompt_at")
        if isinstance(begin, int):
            return text[begin:]
        # Version 0.1 noted no place: it put these instructions and nothing else before the prompt.
        return text.removeprefix(prompts.preamble(prompts.worker(agent.task_id, agent.agent_id)))

    def _take_back(self, task_id: str, agent_id: str) -> None:
        """Remove the reservation of an agent that never ran."""
        self._processes.run(task_id, lambda s: agents.take_back(s, agent_id), actor="deploy_agent")


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _refuse_unstorable(prompt: str) -> None:
    """Raise InvalidInput for a prompt that cannot be passed on unchanged."""
    if not is_text(prompt):
        raise InvalidInput("the prompt contains U+0000 or a lone surrogate", next_step="Remove it")
