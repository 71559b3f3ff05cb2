"""The checks of ``doctor`` for the legacy files and for our own state next to them."""

from __future__ import annotations

from collections.abc import Iterator

import orjson

from backends.json_files.journal.intent import pending_numbers
from backends.json_files.journal.journal import Journal
from backends.json_files.legacy.layout import DOCUMENT, Layout
from backends.json_files.legacy.merged_journals import merged_journals
from backends.json_files.legacy.state_database import legacy_state
from backends.json_files.legacy.stored_counts import listed_tasks
from backends.json_files.legacy.unreadable import unreadable_documents
from backends.json_files.read_only_store import JsonView
from backends.json_files.task.removed_files import removed_files
from backends.jsonl.times import Times
from registry_api.errors import CorruptDocument
from registry_api.migration import MigrationPhase, PhaseFile, SwitchJournal
from registry_api.plugins import Issue, OpenContext
from registry_api.workspace import has_legacy_registry

__all__ = ["check_files"]


def check_files(context: OpenContext) -> Iterator[Issue]:
    """Yield unreadable files, unfinished writes of killed processes, and kept foreign bytes."""
    layout = Layout(context.workspace)
    yield from _kept(layout)
    yield from _damaged(layout)
    if not has_legacy_registry(context.workspace):
        return
    times = Times.named(context.settings.legacy_tz)
    unreadable = unreadable_documents(layout)
    for problem in JsonView(context.workspace, times=times).problems():
        if not any(problem.startswith(path) for path in unreadable):
            yield Issue(what=problem)
    record = PhaseFile(layout.state).read()
    for path, what in sorted(unreadable.items()):
        left = record is not None and path in record.unreadable
        yield Issue(
            what=f"{path}: {what}" + ("; left behind by the move" if left else ""),
            next_step=""
            if left
            else "Repair the file or move it away; to leave it behind in a move: "
            "registry-backend switch next --leave-unreadable",
        )
    older = legacy_state(context.workspace)
    if older is not None and not (record is not None and record.json_is_truth):
        yield Issue(
            what=str(older),
            next_step="Decide which of the two is up to date; if it is the JSON: registry-backend "
            "switch 1 --json-is-truth",
        )
    unknown = sorted(listed_tasks(layout.global_file) - set(layout.tasks()))
    if unknown:
        some = ", ".join(unknown[:3]) + (" …" if len(unknown) > 3 else "")
        yield Issue(
            what=f"{layout.global_file} lists {len(unknown)} task(s) without a registry, not "
            f"counted: {some}"
        )
    yield from _read_only(layout)
    yield from _removed(layout, times)
    merged = merged_journals(layout)
    if merged is not None:
        yield Issue(
            what="the state of two registries was merged, e.g. by git: "
            f"{merged[0]} and {merged[1]} have a feed number in common",
            next_step=f"Stop the agents, then mv {layout.state / 'json'} "
            f"{layout.state / 'json.merged'}: the tasks are read again from their documents",
        )
    if (layout.state / "intents").is_dir():
        for name in sorted(pending_numbers(layout.state / "intents")):
            yield Issue(
                what=f"a write to task {name} is in progress, or its writer was killed",
                next_step="registry-backend recover",
            )


def _read_only(layout: Layout) -> Iterator[Issue]:
    """Yield documents that are read-only although legacy programs may write in this phase."""
    record = PhaseFile(layout.state).read()
    if record is None or record.phase >= MigrationPhase.WRITE_CUTOVER:
        return
    if SwitchJournal(layout.state).read() is not None:
        return  # a switch is running, or is reported as interrupted
    frozen = [p for t in layout.tasks() if not (p := layout.document(t)).lstat().st_mode & 0o222]
    if frozen:
        yield Issue(
            what=f"{len(frozen)} document(s) are read-only in phase {record.phase:d}, e.g. "
            f"{frozen[0]}",
            next_step=f"chmod u+w {frozen[0]}",
        )


def _removed(layout: Layout, times: Times) -> Iterator[Issue]:
    """Yield documents and logs that were removed or truncated; the registry has their records."""
    record = PhaseFile(layout.state).read()
    if record is not None and record.phase >= MigrationPhase.WRITE_CUTOVER:
        return
    for path in sorted((layout.state / "json").glob("*.journal")):
        journal = Journal(path, path.stem)
        try:
            journal.refresh()
            lacking = removed_files(layout, journal, times) if not journal.is_empty else {}
        except CorruptDocument:
            continue  # reported by _damaged
        for name, count in lacking.items():
            file = layout.folder(path.stem) / name
            what = "was removed" if name == DOCUMENT else f"lacks {count} line(s) that it had"
            yield Issue(
                what=f"task {path.stem}: {file} {what}; the registry still has its records",
                next_step="registry-backend reconcile writes it again",
            )


def _damaged(layout: Layout) -> Iterator[Issue]:
    """Yield complete lines of journals that cannot be read."""
    for path in sorted((layout.state / "json").glob("*.journal")):
        place = 0
        with path.open("rb") as file:
            for raw in file:
                if raw.endswith(b"\n") and b"\x00" not in raw:
                    try:
                        if orjson.loads(raw)["k"] not in {"base", "change", "same", "history"}:
                            raise ValueError("not a journal line")
                    except (ValueError, KeyError, TypeError) as error:
                        yield Issue(
                            what=f"{path} at byte {place}: {error}",
                            next_step=f"Restore it from a backup, or mv {path} away: the task is "
                            "then read again from its document",
                        )
                        break
                place += len(raw)


def _kept(layout: Layout) -> Iterator[Issue]:
    """Yield kept foreign bytes, also where no document is left, as in phase 4."""
    for folder in ("conflicts", "quarantine"):
        kept = sorted((layout.state / folder).glob("*"))
        if kept:
            yield Issue(
                what=f"{len(kept)} file(s) with bytes of other programs that are not in the "
                "registry",
                next_step=f"Read the files in {layout.state / folder}, then delete those that "
                "you have dealt with",
            )
