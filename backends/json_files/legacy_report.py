"""What the store can report about the legacy system in its workspace; see Legacy."""

from __future__ import annotations

from datetime import datetime

from backends.json_files.read_only_store import JsonView
from backends.json_files.task.workspace_state import Shared

__all__ = ["LegacyReport"]


class LegacyReport:
    """Reads the legacy system's files as they are now."""

    def __init__(self, shared: Shared) -> None:
        self._shared = shared

    def stored_counts(self) -> dict[str, int]:
        """See Legacy.stored_counts."""
        return self._view().stored_counts()

    def problems(self) -> tuple[str, ...]:
        """See Legacy.problems."""
        kept = [
            f"{path}: kept bytes of another program ({folder})"
            for folder in ("conflicts", "quarantine")
            for path in sorted((self._shared.layout.state / folder).glob("*"))
        ]
        return (*self._view().problems(), *kept)

    def merged(self) -> str | None:
        """See Legacy.merged."""
        return self._view().merged()

    def unreadable(self) -> dict[str, str]:
        """See Legacy.unreadable."""
        return self._view().unreadable()

    def legacy_state(self) -> datetime | None:
        """See Legacy.legacy_state."""
        return self._view().legacy_state()

    def legacy_state_summary(self) -> str | None:
        """See Legacy.legacy_state_summary."""
        return self._view().legacy_state_summary()

    def _view(self) -> JsonView:
        return JsonView(self._shared.layout.workspace, times=self._shared.times)
