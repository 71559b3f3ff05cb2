"""The operator's commands for a move; each is in a module of its own."""

from __future__ import annotations

from typing import Any

from backends.dual_write.best_effort import answering_command
from backends.dual_write.completion import complete
from backends.dual_write.history import read_history
from backends.dual_write.reconcile import reconcile
from backends.dual_write.recovery import recover
from backends.dual_write.session import Session
from backends.dual_write.status import read_status
from backends.dual_write.store import DualWriteStore
from backends.dual_write.switch import plan, switch
from backends.dual_write.take_over import take_over
from backends.dual_write.verify import diff, verify
from registry_api.capabilities import Reconciled
from registry_api.migration import (
    MigrationPhase,
    Mismatch,
    MoveStatus,
    PhaseFile,
    PhaseRecord,
    Progress,
    SwitchReport,
    VerifyReport,
)
from registry_api.plugins import OpenContext

__all__ = ["Move"]


class Move:
    """Implements registry_api.migration.Migration over a DualWriteStore of its own."""

    def __init__(self, context: OpenContext, store: DualWriteStore, control: PhaseFile) -> None:
        self._session = Session(context, store, control)

    def status(self) -> MoveStatus:
        """See Migration.status."""
        return read_status(self._session)

    def switch(
        self,
        to: MigrationPhase,
        *,
        actor: str,
        dry_run: bool = False,
        timeout: float | None = None,
        json_is_truth: bool = False,
        leave_unreadable: bool = False,
        only_from_epoch: int | None = None,
        force: str | None = None,
        target: str | None = None,
        progress: Progress | None = None,
    ) -> SwitchReport:
        """See Migration.switch."""
        if dry_run:
            return plan(
                self._session,
                to,
                json_is_truth=json_is_truth,
                leave_unreadable=leave_unreadable,
                target=target,
            )
        return switch(
            self._session,
            to,
            actor=actor,
            timeout=timeout,
            json_is_truth=json_is_truth,
            leave_unreadable=leave_unreadable,
            only_from_epoch=only_from_epoch,
            force=force,
            target=target,
            progress=progress,
        )

    def complete(self, *, actor: str, only_from_epoch: int | None = None) -> PhaseRecord:
        """See Migration.complete."""
        return complete(self._session, actor=actor, only_from_epoch=only_from_epoch)

    def verify(self, *, progress: Progress | None = None) -> VerifyReport:
        """See Migration.verify."""
        with answering_command():
            return verify(self._session, progress=progress)

    def diff(self, task_id: str) -> list[Mismatch]:
        """See Migration.diff."""
        with answering_command():
            return diff(self._session, task_id)

    def reconcile(self, *, dry_run: bool = False, progress: Progress | None = None) -> Reconciled:
        """See Migration.reconcile."""
        with answering_command():
            return reconcile(self._session, dry_run=dry_run, progress=progress)

    def recover(self, *, dry_run: bool = False, wait: bool = True) -> tuple[str, ...]:
        """See Migration.recover."""
        return recover(self._session, dry_run=dry_run, wait=wait)

    def take_over(self) -> tuple[str, ...]:
        """See Migration.take_over."""
        return take_over(self._session)

    def history(self) -> list[dict[str, Any]]:
        """See Migration.history."""
        return read_history(self._session)

    def close(self) -> None:
        """See Migration.close."""
        self._session.close()
