"""Run the demo: the move under load from phase 0 to 4, back to 0, to 4 again, and the checks."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from backends.admin.demo.workspace import make_tasks
from registry_api import Settings, load_settings, open_migration
from registry_api.errors import VerificationFailed
from registry_api.migration import Migration, MigrationPhase, Progress
from registry_api.workspace import STATE_DIR

__all__ = ["LEAST", "Row", "run_demo"]

LEAST = 100  # acknowledged writes that a step needs to be meaningful
WAY = (1, 2, 3, 4, 3, 2, 1, 0, 1, 2, 3, 4)
_LEGACY = 2  # number of legacy programs; they run in phases 0 to 2
_RETIRE = 2.0  # seconds that a removed document must be unused; the default is 15
_SLOW_SYNC = 0.005  # seconds; a longer fsync means a slow disk
_HERE = "backends.admin.demo"


@dataclass(slots=True, kw_only=True)
class Row:
    """One row of the table: a period of load and the switch that ended it."""

    step: str
    since: float
    seconds: float = 0.0
    pause_ms: float = 0.0
    acknowledged: int = 0
    found: int = 0
    mismatches: int = 0
    missing_in_json: int = 0  # found missing when the move was back in phase 0

    @property
    def lost(self) -> int:
        """Return how many acknowledged writes were missing: at the end, or when back in phase 0."""
        return max(self.acknowledged - self.found, self.missing_in_json)


def run_demo(
    workspace: Path,
    *,
    writers: int,
    seconds: float,
    sabotage: bool,
    say: Callable[[str], None],
    progress: Progress | None = None,
    pair: tuple[str, str] = ("json", "sqlite"),
) -> list[Row]:
    """Run the writers, the legacy programs and the move of a pair of stores; return the table.

    Legacy programs run where the source is json. Raises RegistryError if a program or a switch
    failed.
    """
    source, target = pair
    slow = _slowness(workspace)
    if slow:
        say(f"this host is slow now ({slow}), so each step takes longer")
    acks = workspace / STATE_DIR / "demo"
    acks.mkdir(mode=0o700, parents=True, exist_ok=True)
    names = [f"writer{n}" for n in range(writers)]
    commands = [
        [f"{_HERE}.writer", str(workspace), str(acks / n), n, "yes" if sabotage else "no"]
        for n in names
    ]
    settings = load_settings(workspace, source=source, target=target, retire_seconds=_RETIRE)
    if source != "json":
        _begin(settings)
    environment = {"REGISTRY_SOURCE": source, "REGISTRY_TARGET": target}  # with their credentials
    with _running(commands, environment), closing(open_migration(settings)) as migration:
        legacy_programs = _LegacyPrograms(workspace, acks, _LEGACY if source == "json" else 0)
        with legacy_programs:
            _wait_for(acks, [*names, *legacy_programs.names])
            rows = [Row(step=f"phase {migration.status().record.phase:d}", since=time.monotonic())]
            for phase in WAY:
                _load(rows[-1], seconds, acks, say)
                if phase == MigrationPhase.WRITE_CUTOVER:
                    legacy_programs.stop()
                rows.append(_switched(migration, MigrationPhase(phase), rows[-1], progress))
                if phase == MigrationPhase.READ_MIGRATION:
                    legacy_programs.start()
                if phase == MigrationPhase.SOURCE_ONLY:
                    # Back in phase 0: everything must be in the documents and logs alone.
                    _count(workspace, acks, source, rows, lost_only=True)
            _load(rows[-1], seconds, acks, say)
            rows[-1].seconds = time.monotonic() - rows[-1].since
    with closing(open_migration(settings)) as migration:
        migration.reconcile()
        rows[-1].mismatches += len(migration.verify().mismatches)
    _count(workspace, acks, target, rows)
    return rows


def _begin(settings: Settings) -> None:
    """Create the tasks in the source; a switch and a step back record the move of the pair."""
    first = settings.model_copy(update={"backend": settings.source})
    make_tasks(first)
    with closing(open_migration(first)) as migration:
        migration.switch(MigrationPhase.PARALLEL_WRITE, actor="demo", target=settings.target)
        migration.switch(MigrationPhase.SOURCE_ONLY, actor="demo")


def _slowness(workspace: Path) -> str:
    """Return what makes this host slow, an empty text if it is not."""
    found, cores = [], os.cpu_count() or 1
    if (load := os.getloadavg()[0]) > 1.5 * cores:
        found.append(f"load {load:.0f} on {cores} cores")
    taken = []
    with tempfile.TemporaryFile(dir=workspace) as file:
        for _ in range(5):
            start = time.monotonic()
            file.write(b"x")
            file.flush()
            os.fsync(file.fileno())
            taken.append(time.monotonic() - start)
    if (sync := statistics.median(taken)) > _SLOW_SYNC:
        found.append(f"a sync takes {1000 * sync:.0f} ms")
    return ", ".join(found)


def _switched(
    migration: Migration, phase: MigrationPhase, row: Row, progress: Progress | None
) -> Row:
    # The generated workspace has a torn document, as real ones do; its task is not moved.
    report = migration.switch(phase, actor="demo", leave_unreadable=True, progress=progress)
    done = report.steps[-1]
    row.seconds = time.monotonic() - row.since
    return Row(
        step=f"{done.from_phase:d} -> {done.to_phase:d}, phase {phase:d}",
        since=time.monotonic(),
        pause_ms=done.pause_ms,
        mismatches=len(done.verified.mismatches) if done.verified else 0,
    )


class _LegacyPrograms:
    """The legacy programs of the demo: they may write in phases 0 to 2."""

    def __init__(self, workspace: Path, acks: Path, number: int) -> None:
        self._workspace, self._acks, self._number = workspace, acks, number
        self._stack: ExitStack | None = None
        self.names: list[str] = []

    def start(self) -> None:
        """Start them, with new names each time; do nothing if they run."""
        if self._stack is not None:
            return
        first = len(self.names)
        new = [f"legacy{first + n}" for n in range(self._number)]
        self.names += new
        place = str(self._workspace)
        self._stack = ExitStack()
        self._stack.enter_context(
            _running([[f"{_HERE}.legacy", place, str(self._acks / n), n] for n in new])
        )

    def stop(self) -> None:
        """End them and wait until they have ended."""
        stack, self._stack = self._stack, None
        if stack is not None:
            stack.close()

    def __enter__(self) -> None:
        self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()


@contextmanager
def _running(
    commands: list[list[str]], environment: Mapping[str, str] = MappingProxyType({})
) -> Iterator[None]:
    processes = [
        subprocess.Popen(  # noqa: S603  (ours)
            [sys.executable, "-m", *c], stdin=subprocess.PIPE, env={**os.environ, **environment}
        )
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
            "a program of the demo failed; its error output is above", next_step="Read it"
        )


def _wait_for(acks: Path, names: list[str]) -> None:
    deadline = time.monotonic() + 60
    while not all((acks / n).exists() and (acks / n).stat().st_size for n in names):
        if time.monotonic() > deadline:
            raise VerificationFailed("the demo's programs did not start", next_step="Try again")
        time.sleep(0.05)


def _load(row: Row, seconds: float, acks: Path, say: Callable[[str], None]) -> None:
    """Let the writers run for ``seconds`` and until enough writes were acknowledged."""
    say(row.step)
    start = sum(f.read_bytes().count(b"\n") for f in acks.iterdir())
    deadline = time.monotonic() + max(30.0, 5 * seconds)
    time.sleep(seconds)
    while time.monotonic() < deadline:
        if sum(f.read_bytes().count(b"\n") for f in acks.iterdir()) >= start + LEAST + 20:
            return
        time.sleep(0.2)


def _count(
    workspace: Path, acks: Path, where: str, rows: list[Row], *, lost_only: bool = False
) -> None:
    """Look for every write acknowledged so far, with a program that uses plain json and sqlite3;
    other stores it opens by themselves, without the move.

    ``lost_only``: only count missing writes; acknowledged ones are counted by the last check.
    """
    files = [str(path) for path in sorted(acks.iterdir())]
    command = [sys.executable, "-m", f"{_HERE}.check", str(workspace), where, *files]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE)  # noqa: S603  (ours)
    for _, _, _, when, found in json.loads(done.stdout):
        row = max((r for r in rows if r.since <= when), key=lambda r: r.since, default=rows[0])
        if lost_only:
            row.missing_in_json += not found
            continue
        row.acknowledged += 1
        row.found += bool(found)
