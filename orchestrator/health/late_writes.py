"""Late writes: what other programs wrote to the source of a move after its cut-over."""

from __future__ import annotations

from contextlib import closing

from registry_api import Settings
from registry_api.migration import MigrationPhase, PhaseFile
from registry_api.opening import open_migration
from registry_api.workspace import STATE_DIR

__all__ = ["late_writes"]


def late_writes(settings: Settings) -> tuple[str, ...]:
    """Return the reports of late writes that nobody has dealt with; new ones are kept first.

    Empty without a move, before its cut-over, and if no other program edits the source. Raises
    RegistryError, as Busy during a switch.
    """
    record = PhaseFile(settings.workspace / STATE_DIR).read()
    if record is None or record.phase < MigrationPhase.WRITE_CUTOVER or not record.foreign_writers:
        return ()
    with closing(open_migration(settings)) as migration:
        return migration.status().late_writes
