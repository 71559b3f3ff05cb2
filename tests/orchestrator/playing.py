"""Drive one task from a test: each action of an agent or a reviewer is one call."""

import time

from orchestrator.agents.launchers.process import ProcessLauncher
from orchestrator.agents.launchers.selection import Launchers
from orchestrator.agents.launchers.tmux import TmuxLauncher
from orchestrator.health.scan import HealthScan
from orchestrator.queries.reading import Reading
from orchestrator.rules.findings import FindingType, Severity
from orchestrator.rules.reviews import VerdictWord
from orchestrator.rules.tasks import PhasePlan
from registry_api import ReviewStatus
from registry_api.records import ACTIVE_AGENT


def launchers(name="process"):
    """The project's launchers, of which ``name`` starts new agents."""
    return Launchers({"process": ProcessLauncher, "tmux": TmuxLauncher}, name=name)


def until(condition, seconds=60):
    """Wait for what another process does; return it."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.02)
    return found


class Play:
    """One task over a service, with its agents and reviewers driven by the test."""

    def __init__(self, service):
        self.service = service
        self.reading = Reading(service)
        self.task_id = None

    def create(self, *phases, **options):
        plans = tuple(PhasePlan(name=name) for name in phases)
        self.task_id = self.service.create_task("played", phases=plans, **options).task.task_id
        return self

    @property
    def now(self):
        return self.service.store.load(self.task_id)

    def phase(self, index):
        return self.now.phase(index)

    def agent(self, agent_id):
        return self.now.agent(agent_id)

    def deploy(self, agent_type="worker", **options):
        return self.service.deploy(self.task_id, agent_type, "work", **options).agent_id

    def report(self, agent_id, status="working", message="said", progress=50):
        return self.service.report(self.task_id, agent_id, status, message, progress)

    def done(self, agent_id):
        return self.report(agent_id, "completed", "did it", 100)

    def work(self, agent_type="worker", **options):
        """Deploy an agent and have it complete."""
        agent_id = self.deploy(agent_type, **options)
        self.done(agent_id)
        return agent_id

    def add_finding(
        self, agent_id, message="found", kind=FindingType.INSIGHT, severity=Severity.LOW
    ):
        return self.service.add_finding(
            self.task_id, agent_id, message, finding_type=kind, severity=severity
        )

    @property
    def review(self):
        """The open review."""
        (found,) = [r for r in self.now.reviews if r.status is ReviewStatus.IN_PROGRESS]
        return found

    def say(self, *verdicts, review=None):
        """Give the verdicts of a review's reviewers, in their order."""
        review = review or self.review
        for reviewer, verdict in zip(review.reviewers, verdicts, strict=False):
            self.service.verdict(self.task_id, review.review_id, reviewer, VerdictWord(verdict))

    def approve(self):
        """Have the open review approve."""
        review = self.review
        self.say(*["approved"] * len(review.reviewers), review=review)

    def scan(self):
        return HealthScan(self.service).run()

    def active(self):
        return {a.agent_id for a in self.now.agents if a.status in ACTIVE_AGENT}
