"""Long-running jobs that operators start: one at a time, in a thread, visible to all."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from dashboard.answers import sendable
from dashboard.errors import refusal_of
from registry_api.errors import Refused, RegistryError
from registry_api.migration import Progress

__all__ = ["Job", "JobRunning", "JobState", "Jobs", "Work"]

log = logging.getLogger("registry_backend")
Work = Callable[[Progress], dict[str, Any]]
_EVERY = 0.1  # seconds between two progress updates
_STEPS = 50  # that are kept of a job


class JobRunning(Refused):
    """A job is running, and only one may run at a time."""

    code = "job_running"


class JobState(StrEnum):
    """The state of a job."""

    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A job; its current ``step`` has processed ``done`` of ``total`` items.

    ``past`` are the steps that have ended, with what each processed.

    ``answer`` is its result, or ``{code, message, next_step}`` if it failed.
    """

    number: int
    what: str
    state: JobState = JobState.RUNNING
    began: datetime
    ended: datetime | None = None
    step: str = ""
    done: int = 0
    total: int = 0
    past: tuple[tuple[str, int], ...] = ()
    answer: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return the job as a JSON object."""
        return {
            "number": self.number,
            "what": self.what,
            "state": str(self.state),
            "began": self.began.isoformat(),
            "ended": self.ended.isoformat() if self.ended else None,
            "step": self.step,
            "done": self.done,
            "total": self.total,
            "past": [list(step) for step in self.past],
            "answer": self.answer,
        }


class Jobs:
    """The running job, or the last one; used in the event loop's thread."""

    def __init__(self, changed: Callable[[Job], None]) -> None:
        self.last: Job | None = None
        self._changed = changed
        self._moved = asyncio.Event()

    def start(self, what: str, work: Work) -> Job:
        """Start a job; raises JobRunning while another one runs.

        A server that ends does not wait for it: this interrupts a switch as a kill does, and the
        next operation recovers it.
        """
        last = self.last
        if last is not None and last.state is JobState.RUNNING:
            raise JobRunning(f"{last.what} is still running", next_step="Wait until it has ended")
        job = Job(number=last.number + 1 if last else 1, what=what, began=datetime.now(UTC))
        self._set(job)
        loop = asyncio.get_running_loop()
        threading.Thread(target=self._run, args=(loop, job, work), name=what, daemon=True).start()
        return job

    async def follow(self, job: Job) -> AsyncIterator[Job]:
        """Yield the job after each change, until it has ended."""
        while True:
            moved, now = self._moved, self.last
            if now is None or now.number != job.number:
                return  # another job has started
            yield now
            if now.state is not JobState.RUNNING:
                return
            await moved.wait()

    def _set(self, job: Job) -> None:
        self.last = job
        self._changed(job)
        self._moved.set()
        self._moved = asyncio.Event()

    def _run(self, loop: asyncio.AbstractEventLoop, job: Job, work: Work) -> None:
        due = 0.0

        def tell(step: str, done: int, total: int) -> None:
            nonlocal due, job
            past = job.past
            if job.step not in {"", step}:
                past = (*past, (job.step, job.total))[-_STEPS:]
            job = replace(job, step=step, done=done, total=total, past=past)
            if (now := time.monotonic()) >= due:
                due = now + _EVERY
                with suppress(RuntimeError):  # the server has ended; the work continues
                    loop.call_soon_threadsafe(self._set, job)

        try:
            answer, state = work(tell), JobState.DONE
        except RegistryError as error:
            answer, state = refusal_of(error)[1].model_dump(), JobState.FAILED
        except Exception as error:
            log.exception("%s failed", job.what)
            answer = {"code": "internal", "message": f"{type(error).__name__}: {error}"}
            state = JobState.FAILED
        ended = replace(job, state=state, ended=datetime.now(UTC), answer=sendable(answer))
        try:
            loop.call_soon_threadsafe(self._set, ended)
        except RuntimeError:
            log.warning("%s ended after the server had stopped: %s", job.what, state)
