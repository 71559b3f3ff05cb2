"""Open the store, or the move, that the settings and the workspace call for."""

from typing import TYPE_CHECKING

from registry_api.opening.migrations import open_migration
from registry_api.opening.stores import keep_logs, open_store
from registry_api.renamed import renamed

__all__ = ["keep_logs", "open_migration", "open_store"]

if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        return renamed(__name__, name)
