"""Slow writers down while copying to the target cannot keep up with them."""

from __future__ import annotations

import math
import time
import uuid
from collections.abc import Callable
from contextlib import suppress

from registry_api.capabilities import Stamps, provides
from registry_api.errors import RegistryError
from registry_api.records import Head
from registry_api.store import Capability, RegistryStore
from registry_api.workspace import answering, patience

__all__ = ["SharedPace", "Throttle", "is_shared"]

_WINDOW = 0.25  # seconds between two decisions
_FIRST, _MOST = 0.005, 0.32  # seconds that each commit waits: shortest, longest
_PACE = "pace"  # the stamp of a store that several hosts share: seconds, and a text of its own
_LOOK, _OFTEN = 1.0, 0.1  # seconds between two looks at it; while it demands a delay
_ANSWER = 1.0  # seconds that a look may take
_EXPIRES = 10.0  # seconds after which a stamp that has not changed slows nobody down
_AGAIN = 2.0  # seconds after which a delay is set again: it expires by itself


class Throttle:
    """A delay for each commit, adjusted while changes are copied to the target.

    If writers make more than half as many changes as are copied in the same time, the delay
    doubles; if they make less than a quarter, it halves, until ``hold``. Without it the copy never
    ends on a host whose cores are shared: the copy gets one share of them, eight writers get eight.
    ``tell`` sets the seconds that each commit waits from now on; 0 ends the delay.
    """

    def __init__(
        self, tell: Callable[[float], None], *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._tell = tell
        self._clock = clock
        self._delay = 0.0
        self._told = 0.0
        self._held = self._ended = False
        self._judged = -math.inf  # the time of the last decision
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
        if now - max(since, self._judged) >= _WINDOW:
            self._judged = now  # one decision at a time: the next one measures what it has changed
            written, copied = head.number - number, self._applied - applied
            self._looks[task_id] = now, head.number, self._applied
            if 2 * written > copied:
                self.slower()
            elif 4 * written < copied and self._delay and not self._held:
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

    def hold(self) -> None:
        """Shorten the delay no more: what is still written is copied while the gate is held."""
        self._held = True

    def end(self) -> None:
        """End the delay permanently."""
        if self._delay:
            self._set(0.0)
        self._ended = True


class SharedPace:
    """The delay of commits to a store that several hosts share, kept in a stamp of the store.

    It reaches the hosts that do not see the turnstile of the host that moves. The stamp is written
    again every ``_AGAIN`` seconds, each time with another text: only a text that has changed while
    a process watched slows it down, whatever the clocks of the hosts say.
    """

    def __init__(self) -> None:
        # Without a lock: a thread that looks must hold up no other one, and no child of a fork.
        self._due = 0.0  # monotonic seconds
        self._seen: tuple[str | None, float] | None = None  # the text, and since when

    @staticmethod
    def tell(store: RegistryStore, seconds: float) -> None:
        """Make each commit of every host wait ``seconds``; best effort."""
        stamps: object = store
        if is_shared(store) and provides(stamps, Stamps):
            with suppress(RegistryError), answering(_ANSWER):
                stamps.write_stamp(_PACE, f"{seconds:g} {uuid.uuid4().hex}")

    def keep(self, store: RegistryStore) -> None:
        """Wait before a commit as long as the switch of another host demands."""
        if not is_shared(store):
            return
        if time.monotonic() >= self._due:
            self._due = time.monotonic() + _LOOK  # meanwhile other threads do not look
            self._look(store)
        seconds = self._seconds()
        self._due = min(self._due, time.monotonic() + (_OFTEN if seconds else _LOOK))
        if seconds:
            time.sleep(patience(seconds))

    def _seconds(self) -> float:
        text, since = self._seen or (None, 0.0)
        return _seconds(text) if time.monotonic() - since < _EXPIRES else 0.0

    def _look(self, store: RegistryStore) -> None:
        stamps: object = store
        with suppress(RegistryError), answering(_ANSWER):
            text = stamps.read_stamp(_PACE) if provides(stamps, Stamps) else None
            if self._seen is None:
                self._seen = text, -math.inf
            elif text != self._seen[0]:
                self._seen = text, time.monotonic()


def _seconds(text: str | None) -> float:
    """Return the delay that a stamp demands; 0 for one that cannot be read."""
    try:
        return min(_MOST, max(0.0, float((text or "0").partition(" ")[0])))
    except ValueError:
        return 0.0


def is_shared(store: RegistryStore) -> bool:
    """Return whether several hosts may use a store."""
    return Capability.MULTI_HOST in store.info.capabilities
