"""The chain of a task: one text that stands for every change which led to a state.

The number of a revision does not say which changes were made: a store that was restored from a
backup and written to again reaches the same numbers by other changes. Nor does the newest change,
which a client may have sent again after the restore. The chain does: each link is the hash of the
one before it and of the changeset's digest.

A chain holds its revision, so that one that a program without chains has left behind is recognised.
An empty chain is not known: of changes that version 0.1 made, or of a store of contract 1.0.
"""

from __future__ import annotations

import hashlib

__all__ = ["chain_of", "may_be_same", "next_chain"]

_DIGITS = 32  # hexadecimal, of a link


def next_chain(before: str, revision: int, digest: str) -> str:
    """Return the chain at a revision, whose changeset has this digest.

    ``before``: the chain at the revision before, empty if it is not known or there is none.
    """
    link = hashlib.sha256(f"{before} {digest}".encode()).hexdigest()[:_DIGITS]
    return f"{revision}.{link}"


def chain_of(stored: str | None, revision: int) -> str:
    """Return the chain that is stored with a revision, empty if it is that of an earlier one."""
    return stored if stored and stored.startswith(f"{revision}.") else ""


def may_be_same(chain: str, other: str) -> bool:
    """Return whether two chains may stand for the same changes: one is not known, or both agree."""
    return chain == other or not (chain and other)
