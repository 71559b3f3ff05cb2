"""The states that a document had recently: a legacy program may have read any of them."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from backends.json_files.merge import Key
from registry_api.records import TaskState

__all__ = ["RECENT", "Recent", "RecentStates"]

RECENT = timedelta(minutes=15)
_MOST_RECORDS = 500_000  # in all recent states together; they share the records themselves


@dataclass(frozen=True, slots=True)
class Recent:
    """A recent state of the document.

    ``touched``: the records in which it may differ from the state before it.
    """

    at: datetime
    state: TaskState
    appends: bool
    touched: frozenset[Key]


class RecentStates:
    """The states of the last 15 minutes, oldest first."""

    __slots__ = ("_cut", "_states", "_unshown")

    def __init__(self) -> None:
        self._states = deque[Recent]()
        self._unshown = set[Key]()  # changed since the document last showed a state
        self._cut: datetime | None = None  # states up to here were dropped

    def newest_first(self) -> Iterator[Recent]:
        """Yield the states, the current one first."""
        return reversed(self._states)

    def is_whole(self, now: datetime) -> bool:
        """Return whether every state of the last 15 minutes is here."""
        return self._cut is None or now - self._cut > RECENT

    def add(
        self, state: TaskState, at: datetime, touched: frozenset[Key], *, appends: bool, shown: bool
    ) -> None:
        """Add a state; ``shown`` False: the document never held it.

        Of a run of reports only the first and the last state are kept: reports are merged one by
        one anyway.
        """
        self._unshown |= touched
        if not shown:
            return
        changed, self._unshown = frozenset(self._unshown), set()
        states = self._states
        if appends and len(states) > 1 and states[-1].appends and states[-2].appends:
            changed |= states.pop().touched
        states.append(Recent(at, state, appends, changed))
        while len(states) > 2 and at - states[1].at > RECENT:
            states.popleft()
        each = len(state.agents) + len(state.phases) + len(state.verdicts) + 10
        while len(states) > max(64, _MOST_RECORDS // each):
            self._cut = states.popleft().at
