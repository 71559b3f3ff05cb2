"""Text output of the commands of a move: phase names, progress and results."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from registry_api.errors import UsageError
from registry_api.migration import MigrationPhase, Progress

__all__ = [
    "phase_named",
    "progress_shown",
    "show_history",
    "show_recovered",
    "show_switch",
    "show_verify",
]


def phase_named(text: str, now: MigrationPhase) -> MigrationPhase:
    """Return the phase for a number, a name, ``next`` or ``back``; ``now`` is the current phase.

    Raises UsageError if there is no such phase.
    """
    word = text.strip().upper()
    try:
        if word in {"NEXT", "BACK"}:
            return MigrationPhase(now + (1 if word == "NEXT" else -1))
        return MigrationPhase(int(word)) if word.isdigit() else MigrationPhase[word]
    except (ValueError, KeyError):
        names = ", ".join(f"{p:d} {p.name}" for p in MigrationPhase)
        where = {
            "NEXT": f"no phase after {now:d} {now.name}",
            "BACK": f"no phase before {now:d} {now.name}",
        }
        raise UsageError(
            f"there is {where[word]}" if word in where else f"{text!r} is not a migration phase",
            next_step=f"Phases: {names}, next, back",
        ) from None


@contextmanager
def progress_shown(unit: str = "tasks") -> Iterator[Progress | None]:
    """Yield a callback that shows progress and time left, None if stderr is not a terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    start = time.monotonic()

    def show(what: str, done: int, total: int) -> None:
        rate = done / max(time.monotonic() - start, 1e-6)
        left = (total - done) / max(rate, 1e-6)
        sys.stderr.write(f"\r{what:<10} {done}/{total} {unit}  {rate:.0f}/s  {left:.0f} s left  ")
        sys.stderr.flush()

    try:
        yield show
    finally:
        sys.stderr.write("\r\033[K")


def show_switch(found: dict[str, Any]) -> None:
    """Print the steps of a switch."""
    for note in found["notes"]:
        sys.stdout.write(f"{note}\n")
    if not found["steps"]:
        sys.stdout.write("Already in that phase; nothing was changed.\n")
    for step in found["steps"]:
        names = f"{step['from']:d} -> {step['to']:d} {step['to'].name}"
        if found["dry_run"]:
            sys.stdout.write(f"would switch {names}\n")
            continue
        verified = step["verified"]
        what = f", {verified['records']} records verified" if verified else ""
        sys.stdout.write(
            f"{names}: pause {step['pause_ms']:.1f} ms, {step['caught_up']} tasks caught up{what}\n"
        )


def show_verify(found: dict[str, Any]) -> None:
    """Print a verification's result."""
    for task_id in found.get("in_flight", ()):
        sys.stdout.write(f"{task_id}: kept changing, not compared\n")
    if not found.get("compared", True):
        sys.stdout.write(
            f"{found['tasks']} task(s) in one store: nothing to compare before phase 1\n"
        )
    elif not found["mismatches"]:
        sys.stdout.write(f"{found['tasks']} task(s): no difference\n")
    for m in found["mismatches"]:
        where = f"{m['task_id']}{m['pointer']}"
        sys.stdout.write(f"{where}: {m['source']!r} in the source, {m['target']!r} in the target\n")


def show_caught_up(found: dict[str, Any]) -> None:
    """Print what reconcile did."""
    would = "would be " if found["dry_run"] else ""
    sys.stdout.write(f"{found['healed']} task(s) {would}brought up to date\n")
    if found["taken"] or found["written"]:
        sys.stdout.write(
            f"{found['taken']} log line(s) {would}imported, "
            f"{found['written']} missing line(s) {would}written\n"
        )


def show_compacted(found: dict[str, Any]) -> None:
    """Print what compact did."""
    would = "would be " if found["dry_run"] else ""
    sys.stdout.write(f"{found['lines']} expired line(s) of the feed {would}dropped\n")


def show_recovered(found: dict[str, Any]) -> None:
    """Print what recover did."""
    for note in found["recovered"]:
        sys.stdout.write(f"{note}\n")
    if not found["recovered"]:
        sys.stdout.write("Nothing to recover.\n")


def _what(line: dict[str, Any]) -> str:
    """Return how long the pause of a switch was, or that the move was completed."""
    if line.get("target") == "":
        return f"move complete: {line['source']} is the store"
    return f"pause {line['pause_ms']:.1f} ms"


def show_history(found: dict[str, Any]) -> None:
    """Print the switches made."""
    if not found["switches"]:
        sys.stdout.write("No switch was made here.\n")
    for line in found["switches"]:
        sys.stdout.write(
            f"{line['at']}  phase {line['phase']}  epoch {line['epoch']}  by {line['by']}"
            f"  {_what(line)}\n"
        )
