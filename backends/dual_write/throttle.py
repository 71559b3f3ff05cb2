"""Slow writers down where the copy does not catch up with them."""

from __future__ import annotations

import time
from collections.abc import Callable

from registry_api.snapshot import Head

__all__ = ["Throttle"]

_WINDOW = 0.25  # seconds between two judgements
_FIRST, _MOST = 0.005, 0.32  # seconds that each commit waits
_AGAIN = 2.0  # seconds after which it is told again: it ends by itself


class Throttle:
    """Judges, while changes are copied, whether writers make more than half as many meanwhile.

    Then each commit waits, twice as long at each such judgement, half as long where they make less
    than a quarter: on a host whose cores are shared the copy gets one share and eight writers
    eight, and without this it never ends. ``tell`` makes commits wait so many seconds from now on;
    0 ends it.
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
        # Where each task stood when it was last judged: when, its number, what was copied by then.
        self._looks: dict[str, tuple[float, int, int]] = {}

    def copied(self, changes: int, task_id: str, head: Head) -> None:
        """Count changes that were copied; ``head`` is where their task stands in the source by now.

        Numbers are drawn for the whole registry: between two looks at one task they tell what was
        written anywhere. Of a task that is looked at once nothing is judged.
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
        """Let commits wait twice as long."""
        if not self._ended:
            self._set(min(_MOST, max(_FIRST, 2 * self._delay)))

    def _set(self, delay: float) -> None:
        if not self._ended:
            self._delay, self._told = delay, self._clock()
            self._tell(delay)

    def end(self) -> None:
        """Let commits go on as before, for good."""
        if self._delay:
            self._set(0.0)
        self._ended = True
