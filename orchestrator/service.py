"""The commands of one workspace in one object.

Nothing slow runs inside a transaction: processes are started and stopped after it. Every command
may be called from any thread and from any number of processes at once.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial

from orchestrator.agents.client_config import Endpoint
from orchestrator.agents.deployment import Deployment
from orchestrator.agents.launchers.selection import Launchers
from orchestrator.commands.agents import AgentCommands
from orchestrator.commands.handover_plan import last_words
from orchestrator.commands.phases import PhaseCommands
from orchestrator.commands.processes import Processes
from orchestrator.commands.reports import ReportCommands
from orchestrator.commands.reviews import ReviewCommands
from orchestrator.commands.tasks import TaskCommands
from orchestrator.commands.transactions import Transactions
from orchestrator.observer import Observer
from orchestrator.settings import OrchestratorSettings
from registry_api import RegistryStore, Settings

__all__ = ["Orchestrator"]


def _now() -> datetime:
    return datetime.now(UTC)


class Orchestrator:
    """The commands of one workspace; the caller that opened the store closes it.

    Each command is a method of a class in ``orchestrator/commands/``.
    """

    def __init__(
        self,
        store: RegistryStore,
        launchers: Launchers,
        *,
        settings: Settings,
        options: OrchestratorSettings,
        now: Callable[[], datetime] = _now,
        endpoint: Endpoint | None = None,
        observer: Observer | None = None,
    ) -> None:
        self.store = store
        self.observer = observer or Observer()
        self.settings = settings
        self.options = options
        self.now = now
        self.launchers = launchers
        self.deployment = Deployment(
            store,
            launchers,
            workspace=settings.workspace,
            kinds=options.all_kinds,
            now=now,
            grace=options.stop_grace,
            launch_deadline=options.launch_deadline,
            endpoint=endpoint,
            observer=self.observer,
        )
        transactions = self.transactions = Transactions(store, now, self.observer)
        processes = self.processes = Processes(transactions, self.deployment, options)
        self.find_agent = transactions.find_agent
        self.agent = transactions.agent
        self.end_seen = processes.end_seen
        self.take_over = processes.take_over
        self.last_words = partial(last_words, store)

        tasks = TaskCommands(
            transactions,
            processes,
            workspace=settings.workspace,
            max_revision_rounds=options.max_revision_rounds,
        )
        self.create_task = tasks.create_task
        self.cancel_task = tasks.cancel_task

        agents = self.agents = AgentCommands(transactions, processes, self.deployment, options)
        self.deploy = agents.deploy
        self.kill = agents.kill
        self.retry = agents.retry

        reports = ReportCommands(transactions, processes)
        self.report = reports.report
        self.add_finding = reports.add_finding

        phases = PhaseCommands(transactions, processes)
        self.submit_phase = phases.submit_phase
        self.revision_ready = phases.revision_ready
        self.approve_phase = phases.approve_phase

        reviews = ReviewCommands(transactions, processes)
        self.verdict = reviews.verdict
        self.critique = reviews.critique
        self.abort_review = reviews.abort_review
