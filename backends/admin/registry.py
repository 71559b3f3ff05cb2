"""Look at the workspace before a command opens it."""

from __future__ import annotations

from typing import Any

__all__ = ["is_unrecorded", "open_reader", "recorded_move", "refuse_no_registry"]


def is_unrecorded(settings: Any) -> bool:
    """Return whether no move is recorded: then a command that only reads must write nothing."""
    return recorded_move(settings) is None


def recorded_move(settings: Any) -> Any:
    """Return the phase record, None if no move is recorded."""
    from registry_api.migration import PhaseFile
    from registry_api.workspace import STATE_DIR

    return PhaseFile(settings.workspace / STATE_DIR).read()


def refuse_no_registry(settings: Any) -> None:
    """Raise if there is no registry: a repair must not create one in a mistyped workspace."""
    from registry_api.workspace import STATE_DIR

    if settings.backend == "auto" and not (settings.workspace / STATE_DIR).exists():
        open_reader(settings).close()


def open_reader(settings: Any) -> Any:
    """Open the workspace's store for reading only."""
    from registry_api import open_store

    return open_store(settings, read_only=True)
