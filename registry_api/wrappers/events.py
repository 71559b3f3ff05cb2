"""The wrapper that notifies plugins after each operation; their failures are only logged."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TypeVar

import pluggy

from registry_api.errors import RegistryError
from registry_api.records.changeset import Changeset, Commit
from registry_api.store import RegistryStore
from registry_api.wrappers.base import StoreWrapper

__all__ = ["observed", "observer"]

T = TypeVar("T")

log = logging.getLogger("registry_backend")


def observed(store: RegistryStore, hook: pluggy.HookRelay) -> RegistryStore:
    """Return the store, wrapped if any plugin observes commits or operations."""
    if hook.registry_committed.get_hookimpls() or hook.registry_observe.get_hookimpls():
        return _Observed(store, hook)
    return store


def observer(hook: pluggy.HookRelay) -> Callable[[str, float, str], None]:
    """Return a function (op, seconds, outcome) that notifies plugins which observe operations."""
    watching = hook.registry_observe.get_hookimpls()

    def tell(op: str, seconds: float, outcome: str) -> None:
        values: dict[str, object] = {"op": op, "seconds": seconds, "outcome": outcome}
        for impl in watching:
            _isolated(impl, values)

    return tell


class _Observed(StoreWrapper):
    def __init__(self, inner: RegistryStore, hook: pluggy.HookRelay) -> None:
        super().__init__(inner)
        self._committed = hook.registry_committed.get_hookimpls()
        self._tell = observer(hook)

    def around(self, op: str, call: Callable[[], T]) -> T:
        start = time.perf_counter()
        outcome = "error"
        try:
            result = call()
            outcome = "ok"
        except RegistryError as error:
            outcome = error.code
            raise
        finally:
            self._tell(op, time.perf_counter() - start, outcome)
        return result

    def commit(self, changeset: Changeset) -> Commit:
        commit = super().commit(changeset)
        values: dict[str, object] = {"changeset": changeset, "commit": commit}
        for impl in self._committed:
            _isolated(impl, values)
        return commit


def _isolated(impl: pluggy.HookImpl, values: dict[str, object]) -> None:
    # The commit is done: an observer that fails may neither undo it nor hide it from the caller.
    try:
        impl.function(*(values[name] for name in impl.argnames))
    except Exception:
        log.exception("plugin %s failed while observing", impl.plugin_name)
