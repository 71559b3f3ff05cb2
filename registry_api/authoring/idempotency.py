"""A changeset is applied once: refuse a known id with other content."""

from __future__ import annotations

from registry_api.errors import IdempotencyMismatch
from registry_api.records.changeset import Changeset

__all__ = ["check_same_content"]


def check_same_content(changeset: Changeset, digest: str, known: str) -> None:
    """Raise IdempotencyMismatch if the digest known for the changeset's id is another one."""
    if digest != known:
        raise IdempotencyMismatch(
            f"changeset {changeset.id} was committed with other content",
            next_step="Make a new changeset for a new change",
        )
