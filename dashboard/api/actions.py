"""Actions of an operator: migration commands, stopping an agent, force-approving a phase.

The guard accepts POST requests from operators only. A migration job continues when its caller
disconnects.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import closing
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Depends, Path, Request
from pydantic import AliasChoices, BaseModel, ConfigDict, Field
from sse_starlette import EventSourceResponse, ServerSentEvent

from dashboard.api.read import AgentId, Configured, TaskId, only_known
from dashboard.errors import REFUSALS, STREAM
from dashboard.live.jobs import Job, Jobs, JobState, Work
from registry_api import open_migration
from registry_api.errors import UsageError
from registry_api.migration import MigrationPhase, Mismatch, PhaseFile, Progress, SwitchReport
from registry_api.records import json_text
from registry_api.workspace import STATE_DIR

if TYPE_CHECKING:
    from orchestrator.service import Orchestrator

__all__ = ["router"]

router = APIRouter(prefix="/api", dependencies=[Depends(only_known)], responses=REFUSALS)
_ACTOR = "dashboard"
_MOST = 200  # differences that an answer lists
_LONGEST = 500  # characters shown of a value that differs

Reason = Annotated[str, Field(min_length=1, max_length=1000, pattern=r"\S")]


class Asked(BaseModel):
    """A request body; an unknown field is refused."""

    model_config = ConfigDict(extra="forbid")


class Nothing(Asked):
    """An empty request body."""


class Way(Asked):
    """The phase to switch to."""

    to: MigrationPhase
    json_is_truth: bool = False
    leave_unreadable: bool = False


class Switch(Way):
    """The options of a switch, like those of ``registry-backend switch``.

    ``force``: the reason to continue although a check forbids the switch. ``timeout``: seconds; by
    default it follows the duration of recent operations. ``epoch``: change nothing if the record
    has another epoch by now.
    """

    force: Reason | None = Field(default=None, validation_alias=AliasChoices("force", "anyway"))
    timeout: float | None = Field(default=None, gt=0, le=600, allow_inf_nan=False)
    epoch: int | None = Field(default=None, ge=0, le=2**53)


class Complete(Asked):
    """``epoch``: change nothing if the record has another epoch by now."""

    epoch: int | None = Field(default=None, ge=0, le=2**53)


class Reconcile(Asked):
    """The options of a reconcile; ``dry_run`` only counts what would be done."""

    dry_run: bool = False


class Why(Asked):
    """The reason for an action; it is recorded."""

    reason: Reason


@router.post("/migration/plan", responses=STREAM)
async def plan(request: Request, settings: Configured, asked: Way) -> EventSourceResponse:
    """Check a switch and list its steps; changes nothing."""

    def work(_: Progress) -> dict[str, Any]:
        with closing(open_migration(settings, read_only=True)) as migration:
            return _report(
                migration.switch(
                    asked.to,
                    actor=_ACTOR,
                    dry_run=True,
                    json_is_truth=asked.json_is_truth,
                    leave_unreadable=asked.leave_unreadable,
                )
            )

    return _begun(request, f"plan {asked.to:d}", work)


@router.post("/migration/switch", responses=STREAM)
async def switch(request: Request, settings: Configured, asked: Switch) -> EventSourceResponse:
    """Switch to another phase; each step is verified before it commits."""

    def work(progress: Progress) -> dict[str, Any]:
        with closing(open_migration(settings)) as migration:
            report = migration.switch(
                asked.to,
                actor=_ACTOR,
                timeout=asked.timeout,
                json_is_truth=asked.json_is_truth,
                leave_unreadable=asked.leave_unreadable,
                only_from_epoch=asked.epoch,
                force=asked.force,
                progress=progress,
            )
        return _report(report)

    return _begun(request, f"switch {asked.to:d}", work)


@router.post("/migration/complete", responses=STREAM)
async def complete(request: Request, settings: Configured, asked: Complete) -> EventSourceResponse:
    """End a move in phase 4: its target is the workspace's store from then on."""

    def work(_: Progress) -> dict[str, Any]:
        with closing(open_migration(settings)) as migration:
            done = migration.complete(actor=_ACTOR, only_from_epoch=asked.epoch)
        return {"notes": [f"The move is complete: {done.source} is the store of this workspace."]}

    return _begun(request, "complete", work)


@router.post("/migration/verify", responses=STREAM)
async def verify(request: Request, settings: Configured, asked: Nothing) -> EventSourceResponse:
    """Compare both stores field by field while writers continue; lists at most 200 differences."""
    del asked

    def work(progress: Progress) -> dict[str, Any]:
        # Read directly: the status of the migration would count all records.
        record = PhaseFile(settings.workspace / STATE_DIR).read()
        compared = record is not None and record.phase is not MigrationPhase.SOURCE_ONLY
        with closing(open_migration(settings)) as migration:
            report = migration.verify(progress=progress)
        return {
            "compared": compared,
            "tasks": report.tasks,
            "records": report.records,
            "in_flight": list(report.in_flight[:_MOST]),
            "differences": len(report.mismatches),
            "mismatches": [_difference(m) for m in report.mismatches[:_MOST]],
        }

    return _begun(request, "verify", work)


@router.post("/migration/reconcile", responses=STREAM)
async def reconcile(
    request: Request, settings: Configured, asked: Reconcile
) -> EventSourceResponse:
    """Absorb what legacy programs wrote, and bring the target of a move up to date."""

    def work(progress: Progress) -> dict[str, Any]:
        with closing(open_migration(settings)) as migration:
            done = migration.reconcile(dry_run=asked.dry_run, progress=progress)
        return {**done.to_dict(), "dry_run": asked.dry_run}

    return _begun(request, "reconcile", work)


@router.post("/agents/{task_id}/{agent_id}/stop")
def stop(request: Request, task_id: TaskId, agent_id: AgentId, asked: Why) -> dict[str, Any]:
    """Terminate an agent and stop its process."""
    agent = _orchestrator(request).kill(task_id, agent_id, asked.reason).agent
    return {"task_id": task_id, "agent_id": agent_id, "status": str(agent.status)}


@router.post("/phases/{task_id}/{phase_index}/approve")
def approve(
    request: Request,
    task_id: TaskId,
    phase_index: Annotated[int, Path(ge=0, le=2**31)],
    asked: Why,
) -> dict[str, Any]:
    """Force-approve an escalated phase."""
    done = _orchestrator(request).approve_phase(task_id, asked.reason, phase_index=phase_index)
    phase = done.phase(phase_index)
    return {"task_id": task_id, "phase_index": phase_index, "status": str(phase and phase.status)}


def _begun(request: Request, what: str, work: Work) -> EventSourceResponse:
    """Start a job and stream its events: ``progress``, then ``done`` or ``failed``."""
    jobs: Jobs = request.app.state.jobs
    return EventSourceResponse(_followed(jobs, jobs.start(what, work)), ping=15)


async def _followed(jobs: Jobs, job: Job) -> AsyncIterator[bytes]:
    async for now in jobs.follow(job):
        name = "progress" if now.state is JobState.RUNNING else str(now.state)
        yield ServerSentEvent(event=name, data=json_text.dump_text(now.to_dict())).encode()


def _difference(found: Mismatch) -> dict[str, str]:
    """Return a difference with both values as JSON text, shortened if they are long."""
    source, target = (json_text.dump_text(v)[:_LONGEST] for v in (found.source, found.target))
    return {
        "task_id": found.task_id,
        "pointer": found.pointer or "/",
        "source": source,
        "target": target,
    }


def _report(report: SwitchReport) -> dict[str, Any]:
    return {
        "dry_run": report.dry_run,
        "notes": list(report.notes),
        "checks": list(report.checks),
        "steps": [
            {
                "from": int(step.from_phase),
                "to": int(step.to_phase),
                "name": step.to_phase.name,
                "pause_ms": step.pause_ms,
                "caught_up": step.caught_up,
                "verified": step.verified.records if step.verified else None,
            }
            for step in report.steps
        ],
    }


def _orchestrator(request: Request) -> Orchestrator:
    try:
        from dashboard.commands import orchestrator_on  # noqa: PLC0415  (another extra)
    except ImportError as error:
        raise UsageError(
            f"stopping and approving need {error.name}, which is not installed",
            next_step="pip install 'registry-backend[mcp]'",
        ) from None
    state = request.app.state
    return orchestrator_on(state.store, state.settings, plugins=state.plugins)
