"""The role stamps of a move's stores: what each may do, and whose store it is.

The phase record decides; the stamps follow it. The old writer is always closed before the new one
is opened, so that at no moment two stores accept commits (decision 0021).
"""

from __future__ import annotations

from pathlib import Path

from registry_api.capabilities import Stamps, provides
from registry_api.errors import BackendMismatch, CorruptDocument
from registry_api.migration import MigrationPhase, PhaseRecord
from registry_api.roles import ROLE, Role, RoleStamp
from registry_api.store import RegistryStore
from registry_api.workspace import STATE_DIR, instance_of, registry_id

__all__ = ["Roles", "roles_in"]


def roles_in(record: PhaseRecord) -> dict[str, Role]:
    """Return the role of each store in a move, by its name or URL; the one to be closed is first.

    A source that phase 4 has removed has none.
    """
    if record.phase is MigrationPhase.CLEANUP:
        return {record.target: Role.WRITER}
    if record.phase is MigrationPhase.WRITE_CUTOVER:
        return {record.source: Role.FENCED, record.target: Role.WRITER}
    return {record.target: Role.REPLICA, record.source: Role.WRITER}


class Roles:
    """Gives the stores of a workspace their roles, and tells whose a store is."""

    def __init__(self, workspace: Path) -> None:
        self._workspace = workspace
        self._folder = workspace / STATE_DIR

    def stamp(self, record: PhaseRecord, role: Role, *, writer: str = "") -> RoleStamp:
        """Return a stamp of this workspace's move; ``writer`` is the writer of record instead."""
        return RoleStamp(
            role=role,
            registry=registry_id(self._folder),
            instance=instance_of(self._folder),
            workspace=str(self._workspace),
            move=record.move,
            epoch=record.epoch,
            writer=writer,
        )

    def give(
        self, store: RegistryStore, record: PhaseRecord, role: Role, *, writer: str = ""
    ) -> None:
        """Stamp a store, if it keeps stamps and is not stamped so already."""
        if provides(store, Stamps):
            text = self.stamp(record, role, writer=writer).dump()
            if store.read_stamp(ROLE) != text:
                store.write_stamp(ROLE, text)

    def of(self, store: RegistryStore) -> RoleStamp | None:
        """Return the stamp of a store, None without one; raises CorruptDocument."""
        return RoleStamp.load(store.read_stamp(ROLE)) if provides(store, Stamps) else None

    def has(self, store: RegistryStore, role: Role) -> bool:
        """Return whether a store has a role, or keeps none; not if its stamp is damaged."""
        try:
            stamp = self.of(store)
        except CorruptDocument:
            return False
        return not provides(store, Stamps) or (stamp is not None and stamp.role is role)

    def is_writer(self, store: RegistryStore, record: PhaseRecord) -> bool:
        """Return whether a store has been made the writer of record in the record's epoch."""
        stamp = self.of(store)
        return stamp is not None and (stamp.role, stamp.epoch) == (Role.WRITER, record.epoch)

    def refuse_stranger(self, store: RegistryStore, record: PhaseRecord, place: str) -> None:
        """Raise BackendMismatch if a store belongs to another registry, or to a copy of this one.

        A store inside the workspace was copied with it, and is the copy's own.
        """
        location = store.info.location
        path = Path(location).resolve() if location.startswith("/") else None
        if path is not None and path.is_relative_to(self._workspace.resolve()):
            return
        owner = next((p for p in path.parents if p.name == STATE_DIR), None) if path else None
        if owner is not None:
            raise BackendMismatch(
                f"{place} is inside the registry in {owner.parent}",
                next_step="Name a store outside of other workspaces",
            )
        try:
            stamp = self.of(store)
        except CorruptDocument:
            return  # whose it is cannot be told; it refuses writes until ``recover``
        if stamp is None or not stamp.registry:
            return
        if stamp.registry != registry_id(self._folder):
            raise BackendMismatch(
                f"{place} belongs to the registry in {stamp.workspace} (it is its {stamp.role})",
                next_step="Name another store; to use that one, end the move of its registry first",
            )
        if stamp.instance != instance_of(self._folder):
            raise BackendMismatch(
                f"{self._workspace} is a copy of {stamp.workspace}: both would use {place}",
                next_step="Use only one of them; if the original is no longer used: "
                "registry-backend recover --take-over",
            )

    def refuse_target(self, store: RegistryStore, record: PhaseRecord, *, was_target: bool) -> None:
        """Raise BackendMismatch unless a store can become the target of the record's move.

        It is empty and nobody's, or was this move's target before (``was_target``: as recorded).
        """
        self.refuse_stranger(store, record, record.target)
        tasks, stamp = store.counts().total_tasks, self.of(store)
        if not tasks or (stamp is not None and stamp.move == record.move):
            return
        if stamp is None and was_target:
            return  # of version 0.1, which gave no roles
        whose = f", as the {stamp.role} of another move of this registry" if stamp else ""
        raise BackendMismatch(
            f"the target {record.target} is not empty: it holds {tasks} task(s){whose}",
            next_step="Name an empty store with --to, or move that one away",
        )
