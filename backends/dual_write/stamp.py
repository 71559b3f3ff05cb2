"""Epoch and phase in the target, so that a lost record or a lost target is noticed."""

from __future__ import annotations

from contextlib import suppress
from typing import cast

from backends.dual_write.best_effort import PATIENCE, answering_target
from registry_api.capabilities import MoveTarget
from registry_api.errors import (
    BackendMismatch,
    RegistryError,
)
from registry_api.migration import MigrationPhase, PhaseRecord
from registry_api.store import RegistryStore
from registry_api.workspace import at_most


def refuse_lost(target: RegistryStore, record: PhaseRecord) -> None:
    """Raise BackendMismatch if the target is the writer of record but empty and without a move.

    Its file was lost then, and a new one would be taken for the registry; the target is closed. A
    workspace that was created in such a phase (epoch 1) begins with an empty target.
    """
    if record.phase < MigrationPhase.WRITE_CUTOVER or record.epoch <= 1:
        return
    if cast(MoveTarget, target).read_stamp("epoch") or target.counts().total_tasks:
        return
    location = target.info.location
    target.close()
    raise BackendMismatch(
        f"the workspace is in phase {record.phase:d}, but its registry in {record.target} is empty "
        f"and has no record of the move: {location}",
        next_step="The registry was lost or replaced: restore it from a backup",
    )


def stamp_target(target: RegistryStore, record: PhaseRecord) -> None:
    """Write epoch and phase into the target, so that a lost phase.json is noticed; best effort.

    Done after the record was replaced, never before: otherwise an interrupted switch would leave a
    target that is ahead of the record.
    """
    into = cast(MoveTarget, target)
    with suppress(RegistryError, OSError), at_most(PATIENCE), answering_target():
        if into.read_stamp("epoch") != str(record.epoch):
            into.write_stamp("epoch", str(record.epoch))
            into.write_stamp("phase", str(int(record.phase)))
