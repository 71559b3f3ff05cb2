"""A way to the store on which answers get lost, as on a network."""

from __future__ import annotations

import itertools

from registry_api import Changeset, Commit, RegistryStore, StoreWrapper, errors

__all__ = ["LostAnswers"]


class LostAnswers(StoreWrapper):
    """Of three commits the first happens and nobody is told, the second does not happen, and the
    third is as it should be.
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
