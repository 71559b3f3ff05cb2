"""Bounds on waiting: a caller that must not be held up sets them, the stores read them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextvars import ContextVar
from pathlib import Path

from registry_api.errors import GaveWay

__all__ = [
    "answer_within",
    "answering",
    "at_most",
    "give_way",
    "gives_way",
    "giving_way",
    "note_wait",
    "patience",
    "waited",
    "within",
]

_limit: ContextVar[float | None] = ContextVar("registry_patience", default=None)

_budget: ContextVar[float | None] = ContextVar("registry_waits_budget", default=None)


class _Waits(threading.local):
    total = 0.0  # of the class, since it costs more to find that a thread has no value yet


_waits = _Waits()

_answer: ContextVar[float | None] = ContextVar("registry_answer", default=None)

_wanted: ContextVar[Callable[[], bool] | None] = ContextVar("registry_gate_wanted", default=None)


class at_most:  # noqa: N801  (reads as a function)
    """A context in which each wait for a lock lasts at most ``seconds``."""

    __slots__ = ("_seconds", "_token")

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def __enter__(self) -> None:
        self._token = _limit.set(patience(self._seconds))

    def __exit__(self, *_: object) -> None:
        _limit.reset(self._token)


class answering:  # noqa: N801  (reads as a function)
    """A context in which a call to a store of another distribution is given up after ``seconds``:
    its engine may be down or hang, and may have no time limit of its own.
    """

    __slots__ = ("_seconds", "_token")

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def __enter__(self) -> None:
        self._token = _answer.set(self._seconds)

    def __exit__(self, *_: object) -> None:
        _answer.reset(self._token)


def answer_within() -> float | None:
    """Return the seconds within which such a store must answer, None for no limit."""
    return _answer.get()


def note_wait(seconds: float) -> None:
    """Add to the seconds that this thread has waited for locks."""
    _waits.total += seconds


def waited() -> float:
    """Return the total seconds that this thread has waited for locks."""
    return _waits.total


class within:  # noqa: N801  (reads as a function)
    """A context in which all waits for locks together take at most ``seconds``."""

    __slots__ = ("_seconds", "_token")

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def __enter__(self) -> None:
        self._token = _budget.set(waited() + patience(self._seconds))

    def __exit__(self, *_: object) -> None:
        _budget.reset(self._token)


def patience(default: float) -> float:
    """Return the seconds that a wait may take: the context's bound, else ``default``."""
    limit, budget = _limit.get(), _budget.get()
    if limit is not None:
        default = min(limit, default)
    return default if budget is None else max(0.0, min(default, budget - waited()))


class giving_way:  # noqa: N801  (reads as a function)
    """A context in which a call that waits for a lock, or is about to settle a document, gives up
    as soon as ``wanted`` returns that a switch wants the gate: a queue inside the gate would delay
    the switch. ``wanted`` None: no call gives up, since it has begun a durable write.
    """

    __slots__ = ("_token", "_wanted")

    def __init__(self, wanted: Callable[[], bool] | None) -> None:
        self._wanted = wanted

    def __enter__(self) -> None:
        self._token = _wanted.set(self._wanted)

    def __exit__(self, *_: object) -> None:
        _wanted.reset(self._token)


def gives_way() -> bool:
    """Return whether the call runs in a context in which it gives up its waits for a switch."""
    return _wanted.get() is not None


def give_way(path: Path) -> None:
    """Raise GaveWay if a switch wants the gate.

    Called between two attempts to lock ``path``, and before settling it: the caller has changed
    nothing yet.
    """
    wanted = _wanted.get()
    if wanted is not None and wanted():
        raise GaveWay(
            f"a switch waits for the gate, so the wait for {path} was ended",
            next_step="Try again after the switch",
            path=str(path),
        )
