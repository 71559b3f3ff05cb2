"""How long the calls below may wait: set by whoever must not be held up, read by the stores."""

from __future__ import annotations

from contextvars import ContextVar

__all__ = ["at_most", "patience"]

_limit: ContextVar[float | None] = ContextVar("registry_patience", default=None)


class at_most:  # noqa: N801  (reads as a function)
    """Within this context no lock is waited for longer than ``seconds``."""

    __slots__ = ("_seconds", "_token")

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def __enter__(self) -> None:
        self._token = _limit.set(patience(self._seconds))

    def __exit__(self, *_: object) -> None:
        _limit.reset(self._token)


def patience(default: float) -> float:
    """Return the seconds that a wait may take: the context's bound, else ``default``."""
    limit = _limit.get()
    return default if limit is None else min(limit, default)
