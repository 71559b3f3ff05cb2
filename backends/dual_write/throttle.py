"""Slow writers down while copying to the target cannot keep up with them."""

from __future__ import annotations

import time
from collections.abc import Callable

from registry_api.records import Head

__all__ = ["Throttle"]

_WINDOW = 0.25  # seconds between two decisions
_FIRST, _MOST = 0.005, 0.32  # seconds that each commit waits: shortest, longest
_AGAIN = 2.0  # seconds after which a delay is set again: it expires by itself


class Throttle:
    """A delay for each commit, adjusted while changes are copied to the target.

    If writers make more than half as many changes as are copied in the same time, the delay
    doubles; if they make less than a quarter, it halves. Without it the copy never ends on a host
    whose cores are shared: the copy gets one share of them, eight writers get eight. ``tell`` sets
    the seconds that each commit waits from now on; 0 ends the delay.
    """

    def __init__(
        self, tell: Callable[[float], None], *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._tell = tell
        self._clock = clock
        self._delay = 0.0
        self._told = 0.0
        self._ended = False
        self._applied = 0
        # Per task, at its last decision: the time, its feed number, the changes copied by then.
        self._looks: dict[str, tuple[float, int, int]] = {}

    def copied(self, changes: int, task_id: str, head: Head) -> None:
        """Count copied changes and adjust the delay; ``head`` is their task's head in the source.

        Feed numbers are drawn for the whole registry: the difference between two heads of one task
        is the number of changes written to any task. The first head of a task decides nothing.
        """
        self._applied += changes
        now = self._clock()
        since, number, applied = self._looks.setdefault(task_id, (now, head.number, self._applied))
        if now - since >= _WINDOW:
            written, copied = head.number - number, self._applied - applied
            self._looks[task_id] = now, head.number, self._applied
            if 2 * written > copied:
                self.slower()
            elif 4 * written < copied and self._delay:
                self._set(self._delay / 2 if self._delay > _FIRST else 0.0)
        if self._delay and now - self._told >= _AGAIN:
            self._set(self._delay)

    def slower(self) -> None:
        """Double the time that each commit waits."""
        if not self._ended:
            self._set(min(_MOST, max(_FIRST, 2 * self._delay)))

    def _set(self, delay: float) -> None:
        if not self._ended:
            self._delay, self._told = delay, self._clock()
            self._tell(delay)

    def end(self) -> None:
        """End the delay permanently."""
        if self._delay:
            self._set(0.0)
        self._ended = True
