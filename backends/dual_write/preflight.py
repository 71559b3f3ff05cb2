"""What must hold before a switch: checked, named, and nothing changed where it does not."""

from __future__ import annotations

import shutil
from pathlib import Path

from registry_api.errors import PreflightFailed
from registry_api.store import Legacy, RegistryStore
from registry_api.wrapper import find_capability

__all__ = ["check_legacy_state", "check_merged", "check_place", "check_unreadable"]

# flock and SQLite's log both need what these do not promise between hosts.
_NETWORK = {"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "ceph", "fuse.sshfs", "glusterfs"}
_ROOM = 16 * 2**20


def check_place(workspace: Path) -> None:
    """Raise PreflightFailed on a network file system and where there is no room."""
    kind = _file_system(workspace)
    if kind in _NETWORK:
        raise PreflightFailed(
            f"{workspace} lies on a network file system ({kind}), where locks do not hold",
            next_step="Move the workspace to a local disk",
        )
    free = shutil.disk_usage(workspace).free
    if free < _ROOM:
        raise PreflightFailed(
            f"{workspace} has {free // 2**20} MiB free, {_ROOM // 2**20} are needed",
            next_step="Free space",
        )


def check_legacy_state(source: RegistryStore, *, json_is_truth: bool) -> None:
    """Raise PreflightFailed where the older system's own database may know more than the JSON."""
    legacy = find_capability(source, Legacy)
    written = legacy.legacy_state() if legacy else None
    if written is not None and not json_is_truth:
        raise PreflightFailed(
            f"the older system's own registry/state.sqlite3 (written {written:%Y-%m-%d %H:%M} UTC)"
            " may know more than the JSON",
            next_step="If the JSON is the truth: registry-backend switch 1 --json-is-truth",
        )


def check_unreadable(
    source: RegistryStore, *, left: tuple[str, ...], leave: bool
) -> tuple[str, ...]:
    """Return the files of the source that cannot be read, by their paths; those ``left`` before are
    among them. Raises PreflightFailed where others are and they are not to be left.
    """
    legacy = find_capability(source, Legacy)
    found = dict(legacy.unreadable()) if legacy else {}
    new = {path: what for path, what in found.items() if path not in left}
    if new and not leave:
        named = "; ".join(f"{path}: {what}" for path, what in sorted(new.items()))
        raise PreflightFailed(
            f"{len(new)} document(s) cannot be read, and their tasks would not be moved: {named}",
            next_step="Repair each file, or move it away; or go on without: --leave-unreadable",
        )
    return tuple(sorted(found))


def check_merged(source: RegistryStore, state: Path) -> None:
    """Raise PreflightFailed where the source's feed gives a number twice: no target can hold it."""
    legacy = find_capability(source, Legacy)
    found = legacy.merged() if legacy else None
    if found:
        raise PreflightFailed(
            f"the state of two registries was merged, e.g. by git: {found} have a feed number in "
            "common",
            next_step=f"End the agents, then mv {state / 'json'} {state / 'json.merged'}: the "
            "tasks are read again from their documents and logs",
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
