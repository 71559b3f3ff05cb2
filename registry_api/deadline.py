"""How long the calls below may wait: set by whoever must not be held up, read by the stores."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

__all__ = ["at_most", "patience"]

_limit: ContextVar[float | None] = ContextVar("registry_patience", default=None)


@contextmanager
def at_most(seconds: float) -> Iterator[None]:
    """Within this context no lock is waited for longer than ``seconds``."""
    token = _limit.set(min(seconds, patience(seconds)))
    try:
        yield
    finally:
        _limit.reset(token)


def patience(default: float) -> float:
    """Return the seconds that a wait may take: the context's bound, else ``default``."""
    limit = _limit.get()
    return default if limit is None else min(limit, default)
