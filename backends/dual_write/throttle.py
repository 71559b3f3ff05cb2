"""Slow writers down where the copy does not catch up with them."""

from __future__ import annotations

import time
from collections.abc import Callable

__all__ = ["Throttle"]

_WINDOW = 0.25  # seconds between two judgements
_FIRST, _MOST = 0.005, 0.32  # seconds that each commit waits


class Throttle:
    """Judges, while changes are copied, whether writers make more than half as many meanwhile.

    Then each commit waits, twice as long at each such judgement: on a host whose cores are shared
    the copy gets one share and eight writers eight, and without this it never ends. ``tell`` makes
    commits wait so many seconds from now on; 0 ends it.
    """

    def __init__(
        self, tell: Callable[[float], None], *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._tell = tell
        self._clock = clock
        self._delay = 0.0
        self._ended = False
        self._since = 0.0
        self._applied = self._newest = 0

    def copied(self, changes: int, newest: int) -> None:
        """Count changes that were copied; ``newest`` is the source's newest feed number by now."""
        self._applied += changes
        now = self._clock()
        if not self._newest:
            self._since, self._newest, self._applied = now, newest, 0
        elif now - self._since >= _WINDOW:
            if 2 * (newest - self._newest) > self._applied:
                self.slower()
            elif self._delay:
                self._tell(self._delay)  # before it ends by itself
            self._since, self._newest, self._applied = now, newest, 0

    def slower(self) -> None:
        """Let commits wait twice as long."""
        if self._ended:
            return
        self._delay = min(_MOST, max(_FIRST, 2 * self._delay))
        self._tell(self._delay)

    def end(self) -> None:
        """Let commits go on as before, for good."""
        self._ended = True
        if self._delay:
            self._delay = 0.0
            self._tell(0.0)
