"""The check ``move`` of ``doctor``: interrupted switches, lagging tasks, unreliable file locks."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace

from backends.dual_write.best_effort import answering_target
from backends.dual_write.preflight import check_place
from backends.dual_write.role_stamps import Roles, roles_in
from registry_api.capabilities import Stamps, provides
from registry_api.errors import BackendMismatch, PreflightFailed, RegistryError, TaskNotFound
from registry_api.migration import MigrationPhase, MoveStatus, PhaseFile, PhaseRecord
from registry_api.opening import open_migration, open_store
from registry_api.plugins import Issue, OpenContext
from registry_api.records import Kind, TaskQuery
from registry_api.roles import ROLE, check_commit
from registry_api.workspace import STATE_DIR, usable

__all__ = ["check_move"]

_COMPARED = 20


def check_move(context: OpenContext) -> Iterator[Issue]:
    """Yield the problems of a move: an interrupted switch, a lagging target, unreliable locks."""
    folder = context.workspace / STATE_DIR
    try:
        check_place(context.workspace)
    except PreflightFailed as error:
        yield Issue(what=error.message, next_step=error.next_step)
    record = PhaseFile(folder).read()
    if record is None:
        return
    others = list(_of_others(context, record))
    yield from others
    if others:
        return  # the other checks open these stores
    if not _locks_hold(folder):
        yield Issue(
            what=f"two exclusive locks on one file in {folder} were held at the same time",
            next_step="Move the workspace to a local disk",
        )
    if (folder / "switch.json").exists():
        yield Issue(
            what="a switch is in progress or interrupted", next_step="registry-backend recover"
        )
    with closing(open_migration(context.settings, plugins=context.plugins)) as migration:
        status = migration.status()
    # Comparing a lagging task would make it catch up, and doctor changes nothing.
    different = [] if status.dirty != 0 else list(_different(context, status.record.phase))
    for task_id in different:
        yield Issue(
            what=f"task {task_id} differs between {status.record.source} and "
            f"{status.record.target}",
            next_step=f"registry-backend diff {task_id}",
        )
    yield from _surplus(status)
    for path in status.late_writes:
        yield Issue(
            what=f"{path}: a late write, made by another program after the cut-over",
            next_step="Read the report, end that program, then move the report away",
        )
    if not status.late_writes:  # named above
        for note in status.notes:
            yield Issue(
                what=note, next_step="Fix the cause; writes go to the source only until then"
            )
    if status.dirty:
        yield Issue(
            what=f"{status.dirty} task(s) are behind in {status.record.target}",
            next_step="registry-backend reconcile",
        )
    try:
        lines = len((folder / "mismatches.jsonl").read_bytes().splitlines())
    except FileNotFoundError:
        lines = 0
    if lines:
        yield Issue(
            what=f"{lines} difference(s) between the stores were found by comparing sampled reads",
            next_step=f"registry-backend verify, then remove {folder / 'mismatches.jsonl'}",
        )


def _of_others(context: OpenContext, record: PhaseRecord) -> Iterator[Issue]:
    """Yield a problem if a store of this workspace belongs to another registry, or has left it."""
    roles = Roles(context.workspace)
    for place in list(roles_in(record)) if record.move else [record.source]:
        try:
            scheme, _, location = usable(place, context.settings.places()).partition("://")
            looking = replace(context, location=location, read_only=True)
            with answering_target(), closing(context.plugins.factory(scheme)(looking)) as store:
                if record.move:
                    roles.refuse_stranger(store, record, place)
                elif provides(store, Stamps):
                    # Several hosts may share a store, as long as they may write.
                    check_commit(store.read_stamp(ROLE))
        except BackendMismatch as error:
            named = place in error.message
            what = error.message if named else f"{place}: {error.message}"
            yield Issue(what=what, next_step=error.next_step)
        except RegistryError:
            continue  # it is away, removed or damaged: other checks report that


def _surplus(status: MoveStatus) -> Iterator[Issue]:
    """Yield a problem if the target has more tasks than the source: a backup was restored."""
    record = status.record
    if status.dirty is None or not 1 <= record.phase <= MigrationPhase.READ_MIGRATION:
        return
    mine, theirs = (
        status.records[side].get(Kind.TASK, 0) for side in (record.source, record.target)
    )
    if theirs > mine:
        yield Issue(
            what=f"{record.target} has {theirs - mine} task(s) that {record.source} lacks: one of "
            "them was restored from a backup, or a program wrote to the target directly",
            next_step="registry-backend switch 0, move the target away, then registry-backend "
            "switch 1 fills a new target",
        )


def _different(context: OpenContext, phase: MigrationPhase) -> Iterator[str]:
    """Yield those of the newest tasks that differ in any field; ``verify`` compares all tasks."""
    if phase not in {MigrationPhase.PARALLEL_WRITE, MigrationPhase.READ_MIGRATION}:
        return
    with closing(open_store(context.settings, plugins=context.plugins, read_only=True)) as store:
        newest = store.list_tasks(TaskQuery(newest_first=True), limit=_COMPARED).items
    with closing(open_migration(context.settings, plugins=context.plugins)) as migration:
        for task in newest:
            try:
                if migration.diff(task.task_id):
                    yield task.task_id
            except TaskNotFound:
                continue  # an unreadable document: another check reports it


def _locks_hold(folder: os.PathLike[str]) -> bool:
    """Return whether an exclusive lock keeps out a second one on this file system."""
    path = os.path.join(folder, "phase.json")  # noqa: PTH118  (hot path)
    first, second = (os.open(path, os.O_RDONLY | os.O_CLOEXEC) for _ in range(2))
    try:
        fcntl.flock(first, fcntl.LOCK_EX | fcntl.LOCK_NB)
        fcntl.flock(second, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(first)
        os.close(second)
    return False
