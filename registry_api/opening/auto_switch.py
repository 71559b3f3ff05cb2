"""Move to the target phase when a store is opened, where REGISTRY_AUTO_SWITCH asks for it."""

from __future__ import annotations

import logging
import time

from registry_api.errors import Busy, RegistryError
from registry_api.migration.phase import MigrationPhase, PhaseRecord
from registry_api.migration.phase_file import PhaseFile
from registry_api.opening.migrations import open_migration
from registry_api.plugins.context import OpenContext
from registry_api.workspace.paths import STATE_DIR
from registry_api.workspace.processes import living

__all__ = ["act_on_target_phase"]

log = logging.getLogger("registry_backend")

_SWITCH_PATIENCE = 30.0  # seconds to wait for a switch that another process performs


def act_on_target_phase(context: OpenContext) -> None:
    """Switch to the target phase, or warn why not; never steps back and never raises Busy."""
    settings = context.settings
    control = PhaseFile(context.workspace / STATE_DIR)
    record = control.read() or PhaseRecord()
    target_phase = settings.phase
    if target_phase is None or target_phase == record.phase or not _has_target(context, control):
        return
    if settings.auto_switch and target_phase > record.phase and target_phase != record.target_phase:
        other = [
            p for p in living(control.path.parent) if p.target_phase not in {None, target_phase}
        ]
        if other:
            log.warning(
                "REGISTRY_PHASE=%d is ignored: process %d has the target phase %d",
                target_phase,
                other[0].pid,
                other[0].target_phase,
            )
            return
        if record.stepped_back:
            log.warning(
                "REGISTRY_PHASE=%d is ignored: an operator stepped back to phase %d",
                target_phase,
                record.phase,
            )
            return
        _switch_to_target_phase(context, control, record, target_phase)
        return
    log.warning(
        "REGISTRY_PHASE=%d is only a target: the workspace is in phase %d. To switch, run "
        "registry-backend switch %d",
        target_phase,
        record.phase,
        target_phase,
    )


def _has_target(context: OpenContext, control: PhaseFile) -> bool:
    """Return whether the move has a target: a registry that no move has touched has none."""
    record = control.read()
    if record is not None:
        return bool(record.target)
    return not context.opened or "target" in context.settings.model_fields_set


def _switch_to_target_phase(
    context: OpenContext, control: PhaseFile, record: PhaseRecord, target_phase: int
) -> None:
    """Switch to the target phase, or wait for a process that does; failures are only logged."""
    deadline = time.monotonic() + _SWITCH_PATIENCE
    while (
        target_phase > record.phase
        and not record.stepped_back
        and target_phase != record.target_phase
    ):
        migration = open_migration(context.settings, plugins=context.plugins)
        try:
            report = migration.switch(
                MigrationPhase(target_phase), actor="auto-switch", only_from_epoch=record.epoch
            )
            if report.steps:
                control.note(epoch=record.epoch + len(report.steps), target_phase=target_phase)
        except Busy:
            if time.monotonic() > deadline:
                log.warning(
                    "REGISTRY_PHASE=%d is not reached: another switch is still running",
                    target_phase,
                )
                return
            time.sleep(0.1)
        except RegistryError as error:
            log.warning("REGISTRY_PHASE=%d is not reached: %s", target_phase, error)
            return
        finally:
            migration.close()
        record = control.read() or PhaseRecord()
