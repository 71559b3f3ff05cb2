"""Archive and remove the files of agents that have ended, by age and by size.

Only files that the orchestrator itself made for an agent are touched: its log, its error log, its
exit code and its prompt. Reports and findings are records, and are never removed here. Nothing is
moved or removed that belongs to an agent that is active, unknown, or still has a process.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from orchestrator.agents import process_identity
from orchestrator.agents.deployment import launcher_of, process_of
from orchestrator.service import Orchestrator
from registry_api import Agent
from registry_api.errors import RegistryError, TaskNotFound
from registry_api.records import TERMINAL_AGENT, is_id
from registry_api.workspace import safe_paths as inside

__all__ = ["Retained", "apply_retention"]

log = logging.getLogger("registry_backend")

_IN_LOGS = re.compile(r"(?P<agent>.+)_(?:stream\.jsonl|stderr\.log|exit)")
_IN_TASK = re.compile(r"agent_prompt_(?P<agent>.+)\.txt")
_DAY = timedelta(days=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Retained:
    """What was done, or would be: files as ``task/folder/name``, and the bytes that were freed.

    ``skipped``: how many files could not be moved or removed.
    """

    archived: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    freed: int = 0
    skipped: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class _File:
    """A file of an agent; ``folder`` is empty for the task's own."""

    task_id: str
    folder: str
    name: str
    agent: Agent
    size: int

    @property
    def shown(self) -> str:
        return "/".join(part for part in (self.task_id, self.folder, self.name) if part)


def apply_retention(service: Orchestrator, *, dry_run: bool = False) -> Retained:
    """Archive the files of agents that ended long ago, then remove archived ones that are too old
    or too many.

    A file that cannot be moved or removed is counted as skipped. Raises RegistryError if the store
    cannot be read.
    """
    options, place, now = service.options, service.settings.workspace, service.now()
    archived: list[str] = []
    removed: list[str] = []
    kept: list[_File] = []
    freed = skipped = 0
    for found in _files(service):
        if found.folder == inside.ARCHIVE:
            kept.append(found)
        elif _ended_before(found.agent, now - options.archive_logs_after * _DAY):
            if not dry_run and not _archive(place, found):
                skipped += 1
                continue
            archived.append(found.shown)
            kept.append(found)
    kept.sort(key=lambda one: (one.agent.completed_at or now, one.shown))
    total = sum(one.size for one in kept)
    for one in kept:
        days, most = options.remove_logs_after, options.logs_max_bytes
        too_old = bool(days) and _ended_before(one.agent, now - days * _DAY)
        if not too_old and not (most and total > most):
            continue
        if not dry_run and not _remove(place, one):
            skipped += 1
            continue
        total -= one.size
        freed += one.size
        removed.append(one.shown)
    return Retained(archived=tuple(archived), removed=tuple(removed), freed=freed, skipped=skipped)


def _files(service: Orchestrator) -> Iterator[_File]:
    """Yield the files of agents that have ended and have no process, task by task."""
    place = service.settings.workspace
    with suppress(FileNotFoundError):
        for folder in sorted(place.iterdir()):
            if is_id(folder.name) and folder.is_dir() and not folder.is_symlink():
                yield from _files_of(service, folder.name)


def _files_of(service: Orchestrator, task_id: str) -> Iterator[_File]:
    named = list(_named(service.settings.workspace / task_id))
    if not named:
        return
    try:
        snapshot = service.store.load(task_id)
    except TaskNotFound:
        return  # recorded in another store, perhaps
    except RegistryError as error:  # of one task: the others are looked at
        log.warning("the logs of %s were left alone: %s", task_id, error)
        return
    agents = {agent.agent_id: agent for agent in snapshot.agents if _is_over(service, agent)}
    for folder, name, agent_id, size in named:
        if agent_id in agents:
            yield _File(
                task_id=task_id, folder=folder, name=name, agent=agents[agent_id], size=size
            )


def _named(folder: Path) -> Iterator[tuple[str, str, str, int]]:
    """Yield folder, name, agent and size of what is named as a file of an agent."""
    for below, names in (
        ("", (_IN_TASK,)),
        (inside.LOGS, (_IN_LOGS,)),
        (inside.ARCHIVE, (_IN_LOGS, _IN_TASK)),
    ):
        with suppress(OSError), os.scandir(folder / below) as entries:
            for entry in entries:
                found = next((m for form in names if (m := form.fullmatch(entry.name))), None)
                if found and entry.is_file(follow_symlinks=False):
                    size = entry.stat(follow_symlinks=False).st_size
                    yield below, entry.name, found["agent"], size


def _is_over(service: Orchestrator, agent: Agent) -> bool:
    """Whether an agent has ended and nothing of it runs."""
    if agent.status not in TERMINAL_AGENT:
        return False
    identity, launcher = process_of(agent), service.launchers.get(launcher_of(agent))
    if identity is None:
        return True
    here = process_identity.is_here(identity)
    return here and launcher is not None and not launcher.alive(identity)


def _ended_before(agent: Agent, moment: datetime) -> bool:
    return agent.completed_at is not None and agent.completed_at < moment


def _archive(place: Path, found: _File) -> bool:
    """Move a file into the task's archive, never over another one; returns whether it was moved."""
    with suppress(OSError, RegistryError):
        parts = (found.folder, found.name) if found.folder else (found.name,)
        source = inside.open_parent(place, found.task_id, *parts)
        try:
            target = inside.open_parent(place, found.task_id, inside.ARCHIVE, found.name, make=True)
            try:
                _link(found.name, source, target)
                os.unlink(found.name, dir_fd=source)
            finally:
                os.close(target)
        finally:
            os.close(source)
        return True
    return False


def _link(name: str, source: int, target: int) -> None:
    """Give a file a second name in another folder, unless it has it: the last run may have died
    between the two steps. Raises FileExistsError if another file has that name.
    """
    try:
        os.link(name, name, src_dir_fd=source, dst_dir_fd=target, follow_symlinks=False)
    except FileExistsError:
        known = (os.stat(name, dir_fd=fd, follow_symlinks=False) for fd in (source, target))
        if not os.path.samestat(*known):
            raise


def _remove(place: Path, found: _File) -> bool:
    with suppress(OSError, RegistryError):
        folder = inside.open_parent(place, found.task_id, inside.ARCHIVE, found.name)
        try:
            os.unlink(found.name, dir_fd=folder)
        finally:
            os.close(folder)
        return True
    return False
