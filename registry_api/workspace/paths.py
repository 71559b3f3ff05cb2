"""Where the files of a registry are in its workspace, and where other workspaces may be."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

__all__ = ["expand_folder", "has_legacy_registry", "workspaces_nearby"]

STATE_DIR = ".registry"

SQLITE_FILE = "registry.sqlite3"


IN_PROJECT = ".agent-workspace"  # where the legacy orchestrator keeps a project's registry

_OF_USER = (".claude-orchestrator/workspaces", IN_PROJECT)

_LEGACY = "registry/GLOBAL_REGISTRY.json"

_FOLDER = re.compile(
    r"\$?\{workspaceFolder\}|\$\{WORKSPACE_FOLDER\}|\$WORKSPACE_FOLDER(?![A-Za-z0-9_])"
)


def expand_folder(text: str, folder: Callable[[], Path]) -> str:
    """Return a path with an editor's ``${workspaceFolder}`` at its beginning replaced.

    Some clients pass that on as it is. ``folder`` is called only then.
    """
    found = _FOLDER.match(text)
    return str(folder()) + text[found.end() :] if found else text


def workspaces_nearby(workspace: Path, *, here: Path, home: Path) -> Iterator[Path]:
    """Yield other folders that hold a registry.

    They are looked for in the parents of this workspace and of the current directory, and in their
    ``.agent-workspace``; in the two usual places of the home folder; and in a folder that is
    literally called ``${workspaceFolder}``.
    """
    seen = {workspace.resolve()}
    above = [p for start in (workspace, here) for p in (start, *start.parents)]
    literal = [p / "${workspaceFolder}" / IN_PROJECT for p in (here, workspace)]
    places = [*(q for p in above for q in (p, p / IN_PROJECT)), *literal]
    for place in (*places, *(home / name for name in _OF_USER)):
        with suppress(OSError):
            found = place.resolve()
            if found not in seen and _is_workspace(found):
                yield found
            seen.add(found)


def _is_workspace(folder: Path) -> bool:
    # By name alone: to list the folders above a workspace may mount file systems.
    names = (_LEGACY, f"{STATE_DIR}/phase.json", f"{STATE_DIR}/{SQLITE_FILE}")
    return any((folder / name).exists() for name in names)


def has_legacy_registry(workspace: Path) -> bool:
    """Return whether the workspace holds registries of the legacy, file-based orchestrator."""
    if (workspace / _LEGACY).exists():
        return True
    return any(workspace.glob("*/AGENT_REGISTRY.json"))
