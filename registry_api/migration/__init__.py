"""A move between two stores: its phase and record, the gate, the switch journal."""

from registry_api.migration.gate import Gate
from registry_api.migration.phase import CompletedMove, MigrationPhase, PhaseRecord
from registry_api.migration.phase_file import PhaseFile, move_id
from registry_api.migration.protocol import (
    Migration,
    Mismatch,
    MoveStatus,
    Progress,
    SwitchReport,
    SwitchStep,
    VerifyReport,
)
from registry_api.migration.switch_journal import Switching, SwitchJournal

__all__ = [
    "CompletedMove",
    "Gate",
    "Migration",
    "MigrationPhase",
    "Mismatch",
    "MoveStatus",
    "PhaseFile",
    "PhaseRecord",
    "Progress",
    "SwitchJournal",
    "SwitchReport",
    "SwitchStep",
    "Switching",
    "VerifyReport",
    "move_id",
]
