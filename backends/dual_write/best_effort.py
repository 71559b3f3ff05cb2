"""Calls to a target that may be slow or down: best effort, with back-off after a failure."""

from __future__ import annotations

import time
from dataclasses import dataclass

from registry_api.errors import Busy, GaveWay, RegistryError, Unavailable
from registry_api.workspace import answering, at_most

__all__ = [
    "PATIENCE",
    "BackOff",
    "BackingOff",
    "BestEffort",
    "answering_command",
    "answering_target",
]

PATIENCE = 0.1  # seconds that a replication, a catch-up or a read waits for the target
ANSWER = 5.0  # seconds within which a third-party target must answer a call
COMMAND_ANSWER = 60.0  # ... and, in a command that compares both stores, a call of either
_NO_WAIT = 1.0  # seconds after a failed wait in which calls do not wait for the target
_DOWN = 30.0  # seconds, at most, for which a failed target is not tried again
_PER_FAILURE = 10  # ... and this many times as long as the failure delayed the caller


def answering_command() -> answering:
    """Return a context in which a third-party store must answer each call of a command within
    ``COMMAND_ANSWER``: the command holds the gate, which a rollback needs.
    """
    return answering(COMMAND_ANSWER)


def answering_target() -> answering:
    """Return a context in which a third-party target must answer each call within ``ANSWER``."""
    return answering(ANSWER)


class BackingOff(Unavailable):
    """The target failed a short while ago and is not asked again yet."""


@dataclass(slots=True)
class BackOff:
    """Until when (monotonic seconds) calls do not wait for a target, or do not try it at all."""

    no_wait_until: float = 0.0
    down_until: float = 0.0

    @property
    def is_down(self) -> bool:
        """Whether the target is not to be tried now."""
        return bool(self.down_until) and time.monotonic() < self.down_until


class BestEffort:
    """Best effort with back-off: whatever the target does in this context, the caller continues.

    A call waits for the target, but not right after another wait has failed: a target that hangs
    would delay every call. A target that is down is not tried again for ten times as long as the
    failure took, at most half a minute. Tasks that fall behind meanwhile catch up as usual.
    """

    __slots__ = ("_answering", "_back_off", "_bound", "_since", "_waits")

    def __init__(self, back_off: BackOff) -> None:
        self._back_off = back_off

    def __enter__(self) -> None:
        self._waits = time.monotonic() >= self._back_off.no_wait_until
        self._bound = at_most(PATIENCE if self._waits else 0.0)
        self._bound.__enter__()
        self._answering = answering_target()
        self._answering.__enter__()
        self._since = time.monotonic()

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> bool:
        self._answering.__exit__()
        self._bound.__exit__()
        back_off = self._back_off
        if kind is None:
            back_off.down_until = 0.0
            return False
        now = time.monotonic()
        if issubclass(kind, Unavailable) and not issubclass(kind, Busy | BackingOff):
            back_off.down_until = now + min(_DOWN, _PER_FAILURE * (now - self._since))
        if issubclass(kind, Busy) and not issubclass(kind, GaveWay) and self._waits:
            back_off.no_wait_until = now + _NO_WAIT
        return issubclass(kind, RegistryError | OSError)
