"""Open the store, or the move, that the settings and the workspace call for."""

from registry_api.opening.migrations import open_migration
from registry_api.opening.stores import keep_logs, open_store

__all__ = ["keep_logs", "open_migration", "open_store"]
