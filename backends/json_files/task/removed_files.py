"""Find a removed document and log lines that people or other programs removed.

The journal holds every record, so nothing is lost; ``reconcile`` writes the files again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from backends.json_files.journal.journal import Journal
from backends.json_files.journal.lines import History
from backends.json_files.legacy.layout import Layout
from backends.jsonl.lines import without_id
from backends.jsonl.reader import find_logs, log_name, read_lines
from backends.jsonl.times import Times
from registry_api.records import HISTORIES, Kind, record_key

__all__ = ["missing_lines", "removed_files"]


def removed_files(layout: Layout, journal: Journal, times: Times) -> dict[str, int]:
    """Return, per file in the task's folder, how many records are missing from it."""
    lacking = Counter(log_name(record) for record in missing_lines(layout, journal, times))
    document = layout.document(journal.task_id)
    if not document.exists():
        lacking[document.name] = 1
    return dict(lacking)


def missing_lines(layout: Layout, journal: Journal, times: Times) -> Iterator[History]:
    """Yield the task's records that have no line in its logs.

    A foreign record is matched by the place of its line or, in a truncated log, by its content.
    """
    task_id, ids = journal.task_id, journal.history_ids()
    there, moved = set[tuple[Kind, str]](), Counter[History]()
    for log in find_logs(layout.folder(task_id), []):
        for _, record in read_lines(log, task_id=task_id, times=times, problems=[]):
            key = log.kind, record_key(record)
            if key in ids:
                there.add(key)
            elif record.foreign:
                moved[without_id(record)] += 1
    for kind in HISTORIES:
        for record in journal.histories(kind):
            if (kind, record_key(record)) in there:
                continue
            content = without_id(record)
            if record.foreign and moved[content]:
                moved[content] -= 1
            else:
                yield record
