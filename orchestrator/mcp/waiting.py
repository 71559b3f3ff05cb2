"""Waiting for a task: one follower of the feed wakes all waiting calls of this process.

A waiting call holds no worker thread and no resource of the store, only an event. It compares
views of the task. A hash of the view is the cursor, so that a change between two calls is not
missed, even if the task has moved to another store in between.
"""

from __future__ import annotations

import hashlib
import logging
from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

import anyio
import anyio.to_thread
from mcp.server.mcpserver import Context
from pydantic import Field

from orchestrator.mcp.arguments import TaskId
from orchestrator.mcp.tool_offers import EVERYONE, Effect, tool
from orchestrator.queries.answers import WaitAnswer
from orchestrator.queries.reading import Reading
from orchestrator.queries.task_view import View, changes_between, is_worked_on, view_of
from orchestrator.rules.draft import Draft
from orchestrator.service import Orchestrator
from registry_api import AgentStatus, Change, FeedCursor, Finding, ProgressEntry, TaskSnapshot
from registry_api.client import end_of_feed
from registry_api.errors import CursorExpired
from registry_api.records import ACTIVE_AGENT

__all__ = ["Waiting"]

log = logging.getLogger("registry_backend")
_POLL = 0.25  # seconds between two reads of the feed, while a call waits
_PAGE = 500
_PROGRESS_INTERVAL = 5.0  # seconds between two progress notifications
_IDLE_BEFORE_REREAD = 30.0  # seconds without a waiting call until the feed position is dropped
_MOST_VIEWS = 1000
_MOST_LINES = 50
_QUIET = {AgentStatus.RUNNING, AgentStatus.WORKING, AgentStatus.REVIEWING}  # wake no call


class _Task:
    """A task that at least one call waits for."""

    def __init__(self) -> None:
        self.waiters = 0
        self.followed = anyio.Event()  # set once the follower sees every later change
        self.changed = anyio.Event()
        self.reported = anyio.Event()  # set by any change, also by a report alone
        self.snapshot: TaskSnapshot | None = None
        self.loading = anyio.Lock()

    def wake(self, *, by_report: bool) -> None:
        self.snapshot = None
        self.reported.set()
        self.reported = anyio.Event()
        if not by_report:
            self.changed.set()
            self.changed = anyio.Event()


class Waiting:
    """The tool ``wait_for``, and the follower behind it."""

    def __init__(self, service: Orchestrator) -> None:
        self._service = service
        self._store = service.store
        self._read = Reading(service)
        self._tasks: dict[str, _Task] = {}
        self._views: OrderedDict[str, View] = OrderedDict()
        self._wanted: anyio.Event | None = None

    @tool("Wait for a change", Effect.READS, EVERYONE)
    async def wait_for(
        self,
        task_id: TaskId,
        phase_index: Annotated[
            int | None, Field(ge=0, le=1000, description="only this phase; default: the task")
        ] = None,
        cursor: Annotated[
            str, Field(max_length=64, description="cursor of the last answer: no change is missed")
        ] = "",
        seconds: Annotated[float, Field(ge=0, le=50, description="how long at most")] = 45,
        progress: Annotated[bool, Field(description="return on reports too")] = False,
        *,
        context: Context[Any, Any],
    ) -> WaitAnswer:
        """Wait until a task or phase has changed: a status, a verdict, an agent's end. Returns at
        once if something has changed since the cursor, or if no agent is active.
        """
        began = anyio.current_time()
        deadline = began + seconds
        async with self._watched(task_id) as task:
            with anyio.move_on_at(deadline):  # an unreadable feed must not hold the call
                await task.followed.wait()
            at_first: View | None = None
            while True:
                event = task.reported if progress else task.changed
                if anyio.current_time() >= deadline:
                    task.snapshot = None
                snapshot = await self._load(task_id, task)
                view = view_of(snapshot, phase_index, reports=progress)
                name = self._keep(view)
                if at_first is None:
                    at_first = self._views.get(cursor, {} if cursor else view)
                    cursor = cursor or name
                late = anyio.current_time() >= deadline
                if name != cursor or late or not is_worked_on(snapshot, phase_index):
                    return await self._answer(
                        snapshot, phase_index, name, changes_between(at_first, view), late=late
                    )
                with anyio.move_on_at(min(deadline, anyio.current_time() + _PROGRESS_INTERVAL)):
                    await event.wait()
                await context.report_progress(anyio.current_time() - began, seconds)

    async def _answer(
        self,
        snapshot: TaskSnapshot,
        phase_index: int | None,
        cursor: str,
        changes: list[str],
        *,
        late: bool,
    ) -> WaitAnswer:
        task_id = snapshot.task.task_id
        draft = Draft(snapshot)
        phase = draft.phase(phase_index) if snapshot.phases else None
        step = self._read.next_step(snapshot)
        if late and not changes:
            health = await anyio.to_thread.run_sync(self._read.health, task_id)
            step = health.next_step or f"{step}; wait_for again with this cursor"
        return WaitAnswer(
            task_id=task_id,
            task_status=snapshot.status,
            phase_index=phase.phase_index if phase else None,
            phase_status=phase.status if phase else None,
            changes=changes[:_MOST_LINES],
            agents_active=sum(a.status in ACTIVE_AGENT for a in snapshot.agents),
            cursor=cursor,
            next_step=step,
        )

    @asynccontextmanager
    async def following(self) -> AsyncIterator[None]:
        """Follow the feed for the waiting calls, as long as the context lasts."""
        self._wanted = anyio.Event()
        async with anyio.create_task_group() as group:
            group.start_soon(self._follow)
            yield
            group.cancel_scope.cancel()

    @asynccontextmanager
    async def _watched(self, task_id: str) -> AsyncIterator[_Task]:
        task = self._tasks.setdefault(task_id, _Task())
        task.waiters += 1
        if self._wanted is not None:
            self._wanted.set()
        try:
            yield task
        finally:
            task.waiters -= 1
            if not task.waiters and self._tasks.get(task_id) is task:
                del self._tasks[task_id]

    async def _follow(self) -> None:
        place: FeedCursor | None = None
        alone_since: float | None = None
        known = False  # whether `place` was looked up
        failed = missed = False
        while True:
            if not self._tasks:
                alone_since = alone_since or anyio.current_time()
                assert self._wanted is not None
                await self._wanted.wait()
                self._wanted = anyio.Event()
                known = known and anyio.current_time() - alone_since < _IDLE_BEFORE_REREAD
                continue
            alone_since = None
            try:
                if not known:
                    place = await anyio.to_thread.run_sync(end_of_feed, self._store)
                    known = True
                if missed:
                    for task in self._tasks.values():
                        task.wake(by_report=False)
                place = await self._look(place)
                failed = missed = False
            except CursorExpired:  # by a move, or by very many changes at once
                known, missed = False, True
            except Exception as error:  # noqa: BLE001  (whatever the error is, calls still wait)
                if not failed:
                    log.warning("the feed cannot be read: %s", error)
                failed = True
            await anyio.sleep(_POLL)

    async def _look(self, place: FeedCursor | None) -> FeedCursor | None:
        """Wake the calls whose task has changed; returns the new position in the feed."""
        waiting = dict(self._tasks)
        changes = await anyio.to_thread.run_sync(lambda: self._store.changes(place, limit=_PAGE))
        told: dict[str, bool] = {}
        for change in changes:
            of = change.changeset.task_id
            told[of] = told.get(of, True) and _is_report(change)
            place = change.cursor
        for task_id, task in waiting.items():
            task.followed.set()
            if task_id in told:
                task.wake(by_report=told[task_id])
        return place

    async def _load(self, task_id: str, task: _Task) -> TaskSnapshot:
        """Return the task, loaded once for all calls that wait for it."""
        async with task.loading:
            if task.snapshot is not None:
                return task.snapshot
            before = task.reported
            snapshot = await anyio.to_thread.run_sync(self._store.load, task_id)
            if before is task.reported:
                task.snapshot = snapshot
            return snapshot

    def _keep(self, view: View) -> str:
        name = hashlib.sha256(repr(sorted(view.items())).encode()).hexdigest()[:16]
        self._views[name] = view
        self._views.move_to_end(name)
        while len(self._views) > _MOST_VIEWS:
            self._views.popitem(last=False)
        return name


def _is_report(change: Change) -> bool:
    """Whether a change holds only findings and reports of agents that continue."""
    return all(
        isinstance(record, Finding)
        or (isinstance(record, ProgressEntry) and record.status in _QUIET)
        for op in change.changeset.ops
        for record in [getattr(op, "record", None)]
    )
