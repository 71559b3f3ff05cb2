"""Translate the exceptions of a store's engine and of the file system to RegistryError.

A caller catches RegistryError; it cannot know what redis, psycopg or the kernel raise. Programming
errors (TypeError, KeyError …) are passed on unchanged: no caller could act on them.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from contextvars import copy_context
from dataclasses import replace
from functools import wraps
from typing import Any, TypeVar

from registry_api.errors import Unavailable
from registry_api.store import RegistryStore, StoreInfo
from registry_api.typed_errors import hide, typed
from registry_api.workspace.lock_timeout import answer_within, note_wait, waited
from registry_api.workspace.store_location import public
from registry_api.wrappers.base import StoreWrapper

__all__ = ["Border", "answered"]

T = TypeVar("T")

# Calls that may take minutes and must not continue after their caller gave up: they have no time
# limit. A short call, which has one, precedes each of them.
_LONG = {"apply_all", "replace"}


class Border(StoreWrapper):
    """A wrapper that passes every call, optional protocols included, and translates exceptions."""

    def __init__(
        self, inner: RegistryStore, *, secrets: Sequence[str] = (), foreign: bool = False
    ) -> None:
        """``secrets`` are hidden in messages that repeat them. ``foreign``: a store of another
        distribution, whose calls may never return (see ``answering``).
        """
        super().__init__(inner)
        self._secrets = secrets
        self._foreign = foreign
        self._given_up: list[threading.Thread] = []

    @property
    def info(self) -> StoreInfo:
        """The store's description of itself, without credentials."""
        info = self.inner.info
        return replace(info, location=public(info.location)) if info.location else info

    def around(self, op: str, call: Callable[[], T]) -> T:
        """Run one call."""
        try:
            if self._foreign and op not in _LONG:
                return answered(call, self.inner.info.name, given_up=self._given_up)
            return call()
        except Exception as error:
            found = typed(error, store=self.inner.info.name, op=op)
            if found is None:
                raise
            hide(found, self._secrets)
            if found is error:
                raise
            # An engine's message may repeat its URL, and a traceback would show it.
            raise found from (None if self._secrets else error)

    def close(self) -> None:
        """Close the store."""
        self.around("close", self.inner.close)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        found = getattr(self.inner, name)
        if not callable(found):
            return found

        @wraps(found)
        def call(*args: Any, **named: Any) -> Any:
            return self.around(name, lambda: found(*args, **named))

        return call


def answered(call: Callable[[], T], name: str, *, given_up: list[threading.Thread]) -> T:
    """Run a call of a foreign store; raises Unavailable if it has not returned in time.

    The call then continues on a thread of its own, which cannot be stopped and is added to
    ``given_up``: while it runs, the store is not called again. The call may still take effect; that
    is harmless, since a read or an ``apply`` may come late or twice.
    """
    seconds = answer_within()
    if seconds is None:
        return call()
    given_up[:] = [thread for thread in given_up if thread.is_alive()]
    if given_up:
        raise _unanswered(name, seconds)
    found: Future[tuple[T, float]] = Future()
    context = copy_context()

    def run() -> None:
        try:
            result = context.run(call)
            found.set_result((result, waited()))
        except BaseException as error:  # noqa: BLE001  (raised again by the waiting caller)
            found.set_exception(error)

    thread = threading.Thread(target=run, name=f"{name}-call", daemon=True)
    thread.start()
    try:
        result, spent = found.result(seconds)
    except FutureTimeout:
        if found.done():  # the call itself raised it
            raise
        given_up.append(thread)
        raise _unanswered(name, seconds) from None
    note_wait(spent)
    return result


def _unanswered(name: str, seconds: float) -> Unavailable:
    return Unavailable(
        f"the store {name!r} has not answered within {seconds:g} s",
        next_step="Check that its server is running, then try again",
    )
