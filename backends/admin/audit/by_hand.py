"""Why a place cannot be rewritten by rule."""

from __future__ import annotations

from backends.admin.audit.function import Draft
from backends.admin.audit.scan import Scan
from backends.admin.audit.sites import Access, Kind

__all__ = ["why_by_hand"]


def why_by_hand(scan: Scan, draft: Draft) -> str:
    """Return the reason, empty if a rule can rewrite the place."""
    if draft.kind is Kind.LOCKED_FILE and draft.access is Access.WRITE:
        writes = scan.writes_of(draft.node)
        return f"its body writes the file {writes} times" if writes > 1 else ""
    if draft.kind in {Kind.LOCKED_WRITE, Kind.DUMP}:
        reads = {Kind.LOAD, Kind.LOCKED_READ}
        if not any(d.kind in reads and d.origin == draft.origin for d in scan.found.drafts):
            return "it writes a registry that this function did not read: created, or replaced?"
    if draft.kind is Kind.NAME:
        return "it compares the name of a file"
    if draft.kind is Kind.CHANGE and not draft.touches:
        return "which key it changes is not known"
    return ""
