"""Run the demo: the move under load, 0 -> 1 -> 2 -> 1 -> 0 -> 1 -> 2, then the check."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from registry_api import load_settings, open_migration
from registry_api.errors import VerificationFailed
from registry_api.migration import MigrationPhase

__all__ = ["LEAST", "Row", "run_demo"]

LEAST = 100  # acknowledged writes a step: fewer would prove nothing
WAY = (1, 2, 1, 0, 1, 2)
_HERE = "backends.admin.demo"


@dataclass(slots=True, kw_only=True)
class Row:
    """One line of the table: a stretch of load and the switch that ended it."""

    step: str
    since: float
    seconds: float = 0.0
    pause_ms: float = 0.0
    acknowledged: int = 0
    found: int = 0
    mismatches: int = 0

    @property
    def lost(self) -> int:
        """Acknowledged and not found."""
        return self.acknowledged - self.found


def run_demo(
    workspace: Path,
    *,
    writers: int,
    seconds: float,
    sabotage: bool,
    say: Callable[[str], None],
) -> list[Row]:
    """Run writers, an un-migrated program and the move; return the table.

    Raises RegistryError when a program died or a switch failed.
    """
    acks = workspace / ".registry" / "demo"
    acks.mkdir(mode=0o700, parents=True, exist_ok=True)
    names = [f"writer{n}" for n in range(writers)]
    commands = [
        [f"{_HERE}.writer", str(workspace), str(acks / n), n, "yes" if sabotage else "no"]
        for n in names
    ]
    commands.append([f"{_HERE}.legacy", str(workspace), str(acks / "legacy"), "legacy"])
    with _running(commands), closing(open_migration(load_settings(workspace))) as migration:
        _wait_for(acks, [*names, "legacy"])
        rows = [Row(step=f"phase {migration.status().record.phase:d}", since=time.monotonic())]
        for phase in WAY:
            _load(rows[-1], seconds, acks, say)
            report = migration.switch(MigrationPhase(phase), actor="demo")
            done = report.steps[-1]
            rows[-1].seconds = time.monotonic() - rows[-1].since
            step = f"{done.from_phase:d} -> {done.to_phase:d}, phase {phase}"
            verified = len(done.verified.mismatches) if done.verified else 0
            rows.append(
                Row(
                    step=step,
                    since=time.monotonic(),
                    pause_ms=done.pause_ms,
                    mismatches=verified,
                )
            )
        _load(rows[-1], seconds, acks, say)
        rows[-1].seconds = time.monotonic() - rows[-1].since
    with closing(open_migration(load_settings(workspace))) as migration:
        migration.reconcile()
        rows[-1].mismatches += len(migration.verify().mismatches)
    _check(workspace, acks, [*names, "legacy"], rows)
    return rows


@contextmanager
def _running(commands: list[list[str]]) -> Iterator[None]:
    processes = [
        subprocess.Popen([sys.executable, "-m", *c], stdin=subprocess.PIPE)  # noqa: S603  (ours)
        for c in commands
    ]
    try:
        yield
    finally:
        for process in processes:
            assert process.stdin is not None
            process.stdin.close()
        codes = [process.wait(60) for process in processes]
    if any(codes):
        raise VerificationFailed(
            "a program of the demo died; its last words are above", next_step="Read them"
        )


def _wait_for(acks: Path, names: list[str]) -> None:
    deadline = time.monotonic() + 60
    while not all((acks / n).exists() and (acks / n).stat().st_size for n in names):
        if time.monotonic() > deadline:
            raise VerificationFailed("the demo's programs did not start", next_step="Try again")
        time.sleep(0.05)


def _load(row: Row, seconds: float, acks: Path, say: Callable[[str], None]) -> None:
    """Let the writers go on: for the time asked for, and until enough was acknowledged."""
    say(row.step)
    start = sum(f.read_bytes().count(b"\n") for f in acks.iterdir())
    deadline = time.monotonic() + max(30.0, 5 * seconds)
    time.sleep(seconds)
    while time.monotonic() < deadline:
        if sum(f.read_bytes().count(b"\n") for f in acks.iterdir()) >= start + LEAST + 20:
            return
        time.sleep(0.2)


def _check(workspace: Path, acks: Path, names: list[str], rows: list[Row]) -> None:
    files = [str(acks / n) for n in names]
    command = [sys.executable, "-m", f"{_HERE}.check", str(workspace), "both", *files]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE)  # noqa: S603  (ours)
    for _, _, _, when, found in json.loads(done.stdout):
        row = max((r for r in rows if r.since <= when), key=lambda r: r.since, default=rows[0])
        row.acknowledged += 1
        row.found += bool(found)
