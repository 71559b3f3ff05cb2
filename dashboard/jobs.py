"""Long work that an operator asked for: one at a time, in a thread; all may watch it."""

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
from dashboard.refusals import refusal_of
from registry_api.errors import Refused, RegistryError
from registry_api.migration import Progress

__all__ = ["Job", "JobRunning", "JobState", "Jobs", "Work"]

log = logging.getLogger("registry_backend")
Work = Callable[[Progress], dict[str, Any]]
_EVERY = 0.1  # seconds between two signs of progress


class JobRunning(Refused):
    """An operator's work is under way, and there is only one at a time."""

    code = "job_running"


class JobState(StrEnum):
    """How far a job is."""

    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One piece of work; ``step`` of it has done ``done`` of ``total``.

    ``answer`` is its result, or when it failed ``{code, message, next_step}``.
    """

    number: int
    what: str
    state: JobState = JobState.RUNNING
    began: datetime
    ended: datetime | None = None
    step: str = ""
    done: int = 0
    total: int = 0
    answer: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return {
            "number": self.number,
            "what": self.what,
            "state": str(self.state),
            "began": self.began.isoformat(),
            "ended": self.ended.isoformat() if self.ended else None,
            "step": self.step,
            "done": self.done,
            "total": self.total,
            "answer": self.answer,
        }


class Jobs:
    """The job that runs, or the last one; used in the loop's thread."""

    def __init__(self, changed: Callable[[Job], None]) -> None:
        self.last: Job | None = None
        self._changed = changed
        self._moved = asyncio.Event()

    def start(self, what: str, work: Work) -> Job:
        """Begin; raises JobRunning while another one does.

        Nobody waits for it: a server that ends leaves a switch as a kill would, for the next
        operation to recover.
        """
        last = self.last
        if last is not None and last.state is JobState.RUNNING:
            raise JobRunning(f"{last.what} is running here", next_step="Wait until it has ended")
        job = Job(number=last.number + 1 if last else 1, what=what, began=datetime.now(UTC))
        self._set(job)
        loop = asyncio.get_running_loop()
        threading.Thread(target=self._run, args=(loop, job, work), name=what, daemon=True).start()
        return job

    async def follow(self, job: Job) -> AsyncIterator[Job]:
        """Yield a job each time that it has moved, until it has ended."""
        while True:
            moved, now = self._moved, self.last
            if now is None or now.number != job.number:
                return  # another has begun since
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
            job = replace(job, step=step, done=done, total=total)
            if (now := time.monotonic()) >= due:
                due = now + _EVERY
                with suppress(RuntimeError):  # the server has ended; the work goes on
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
            log.warning("%s ended after the server: %s", job.what, state)
