"""Where the files of a registry are in its workspace."""

from __future__ import annotations

from pathlib import Path

__all__ = ["has_legacy_registry"]

STATE_DIR = ".registry"

SQLITE_FILE = "registry.sqlite3"


def has_legacy_registry(workspace: Path) -> bool:
    """Return whether the workspace holds registries of the legacy, file-based orchestrator."""
    if (workspace / "registry" / "GLOBAL_REGISTRY.json").exists():
        return True
    return any(workspace.glob("*/AGENT_REGISTRY.json"))
