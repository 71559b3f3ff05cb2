"""What ``doctor`` asks of a move: where it stands, what lags, whether locks hold here."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import closing

from backends.dual_write.preflight import check_place
from registry_api.control import FileControl
from registry_api.errors import PreflightFailed, TaskNotFound
from registry_api.health import Issue
from registry_api.migration import MigrationPhase, MoveStatus
from registry_api.models import Kind
from registry_api.opening import STATE_DIR, OpenContext, open_migration, open_store
from registry_api.query import TaskQuery

__all__ = ["check_move"]

_COMPARED = 20


def check_move(context: OpenContext) -> Iterator[Issue]:
    """A switch that died, a target that lags, a file system whose locks do not hold."""
    folder = context.workspace / STATE_DIR
    try:
        check_place(context.workspace)
    except PreflightFailed as error:
        yield Issue(what=error.message, next_step=error.next_step)
    if FileControl(folder).read() is None:
        return
    if not _locks_hold(folder):
        yield Issue(
            what=f"two locks on one file of {folder} were held at once",
            next_step="Move the workspace to a local disk",
        )
    if (folder / "switch.json").exists():
        yield Issue(what="a switch is under way, or died", next_step="registry-backend recover")
    with closing(open_migration(context.settings, plugins=context.plugins)) as migration:
        status = migration.status()
    # A task that lags would be healed by the comparison: doctor mends nothing.
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
            what=f"{path}: written by another program after the cut-over",
            next_step="Read it, end that program, move the report away",
        )
    if not status.late_writes:  # named above
        for note in status.notes:
            yield Issue(what=note, next_step="See its message; writes go on in the source alone")
    if status.dirty:
        yield Issue(
            what=f"{status.dirty} task(s) lag in {status.record.target}",
            next_step="registry-backend reconcile",
        )
    try:
        lines = len((folder / "mismatches.jsonl").read_bytes().splitlines())
    except FileNotFoundError:
        lines = 0
    if lines:
        yield Issue(
            what=f"{lines} difference(s) were found when reads were compared",
            next_step=f"registry-backend verify, then remove {folder / 'mismatches.jsonl'}",
        )


def _surplus(status: MoveStatus) -> Iterator[Issue]:
    """Tasks that only the target has: the source was restored from a backup."""
    record = status.record
    if status.dirty is None or not 1 <= record.phase <= MigrationPhase.READ_MIGRATION:
        return
    mine, theirs = (
        status.records[side].get(Kind.TASK, 0) for side in (record.source, record.target)
    )
    if theirs > mine:
        yield Issue(
            what=f"{record.target} holds {theirs - mine} task(s) that {record.source} lacks: "
            "one was restored from a backup, or somebody wrote there",
            next_step="registry-backend switch 0, move the target away, registry-backend switch 1: "
            "it is filled again",
        )


def _different(context: OpenContext, phase: MigrationPhase) -> Iterator[str]:
    """Compare the newest tasks field by field; ``verify`` compares all."""
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
                continue  # a document that cannot be read, named by another check


def _locks_hold(folder: os.PathLike[str]) -> bool:
    """Whether a lock that is held exclusively keeps another out, on this file system."""
    path = os.path.join(folder, "phase.json")  # noqa: PTH118
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
