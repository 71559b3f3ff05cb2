"""The preconditions of a switch. A check that fails raises PreflightFailed; none changes data."""

from __future__ import annotations

import shutil
from pathlib import Path

from registry_api.capabilities import Legacy, find_capability
from registry_api.errors import PreflightFailed
from registry_api.migration import MigrationPhase
from registry_api.settings import Settings
from registry_api.store import RegistryStore
from registry_api.workspace import living, public

__all__ = [
    "check_legacy_state",
    "check_merged",
    "check_place",
    "check_processes",
    "check_unreadable",
    "restart_notes",
]

# flock and SQLite's WAL need guarantees that these file systems do not give between hosts.
_NETWORK = {"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "ceph", "fuse.sshfs", "glusterfs"}
_ROOM = 16 * 2**20


def check_place(workspace: Path) -> None:
    """Raise PreflightFailed on a network file system or if there is too little free space."""
    kind = _file_system(workspace)
    if kind in _NETWORK:
        raise PreflightFailed(
            f"{workspace} is on a network file system ({kind}), where file locks are not reliable",
            next_step="Move the workspace to a local disk",
        )
    free = shutil.disk_usage(workspace).free
    if free < _ROOM:
        raise PreflightFailed(
            f"{workspace} has {free // 2**20} MiB free, a switch needs {_ROOM // 2**20} MiB",
            next_step="Free disk space, then try again",
        )


def check_legacy_state(source: RegistryStore, *, json_is_truth: bool) -> None:
    """Raise PreflightFailed if the legacy system's database may be newer than the JSON files."""
    legacy = find_capability(source, Legacy)
    written = legacy.legacy_state() if legacy else None
    if written is not None and not json_is_truth:
        raise PreflightFailed(
            f"the legacy system's registry/state.sqlite3 (written {written:%Y-%m-%d %H:%M} UTC)"
            " may be newer than the JSON files",
            next_step="Take over its tasks first: registry-backend import WORKSPACE. Then, or if "
            "the JSON files are up to date: registry-backend switch 1 --json-is-truth",
        )


def check_unreadable(
    source: RegistryStore, *, left: tuple[str, ...], leave: bool
) -> tuple[str, ...]:
    """Return the paths of the source's files that cannot be read.

    Files in ``left`` were accepted as unreadable before. Raises PreflightFailed if there are more,
    unless ``leave`` accepts them too.
    """
    legacy = find_capability(source, Legacy)
    found = dict(legacy.unreadable()) if legacy else {}
    new = {path: what for path, what in found.items() if path not in left}
    if new and not leave:
        named = "; ".join(f"{path}: {what}" for path, what in sorted(new.items()))
        raise PreflightFailed(
            f"{len(new)} document(s) cannot be read, and their tasks would not be moved: {named}",
            next_step="Repair or move away each file, or switch without them: --leave-unreadable",
        )
    return tuple(sorted(found))


def restart_notes(settings: Settings, after: MigrationPhase) -> tuple[str, ...]:
    """Return what will keep a program from starting again while the move is under way."""
    if after is MigrationPhase.SOURCE_ONLY or settings.backend in {"auto", "dual"}:
        return ()
    note = (
        f"REGISTRY_BACKEND={public(settings.backend)} is set: running programs follow the move, "
        "but one that is started with it during the move is refused. Unset it first"
    )
    return (note,)


def check_processes(state: Path) -> None:
    """Raise PreflightFailed if a live process may use the source without passing the gate."""
    pids = [str(process.pid) for process in living(state) if not process.gated]
    if pids:
        raise PreflightFailed(
            f"process(es) of an earlier version use the registry: {', '.join(pids)}; they would "
            "not follow the move",
            next_step="End them, start them again with this version, then try again",
        )


def check_merged(source: RegistryStore, state: Path) -> None:
    """Raise PreflightFailed if the source's feed has a number twice: no target can store that."""
    legacy = find_capability(source, Legacy)
    found = legacy.merged() if legacy else None
    if found:
        raise PreflightFailed(
            f"the state of two registries was merged, e.g. by git: {found} have a feed number in "
            "common",
            next_step=f"Stop the agents, then mv {state / 'json'} {state / 'json.merged'}: the "
            "tasks are then read again from their documents and logs",
        )


def _file_system(path: Path) -> str:
    try:
        lines = Path("/proc/self/mounts").read_text().splitlines()
    except OSError:
        return ""
    best = ("", "")
    for line in lines:
        _, point, kind, *_ = line.split(" ")
        point = point.replace("\\040", " ")
        if path.is_relative_to(point) and len(point) >= len(best[0]):
            best = (point, kind)
    return best[1]
