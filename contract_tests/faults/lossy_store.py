"""A wrapper of a store that loses requests and answers, as a network does."""

from __future__ import annotations

import itertools

from registry_api import Changeset, Commit, RegistryStore, StoreWrapper, errors

__all__ = ["LostAnswers"]


class LostAnswers(StoreWrapper):
    """A lossy store: of every three commits it applies the first but loses the answer, loses the
    second before it is applied, and lets the third succeed.
    """

    def __init__(self, inner: RegistryStore) -> None:
        super().__init__(inner)
        self._turns = itertools.cycle(range(3))

    def commit(self, changeset: Changeset) -> Commit:
        turn = next(self._turns)
        if turn == 1:
            raise errors.Unavailable("the request was lost", next_step="Try again")
        done = self.inner.commit(changeset)
        if turn == 0:
            raise errors.OutcomeUnknown("the answer was lost", next_step="Send it again")
        return done
