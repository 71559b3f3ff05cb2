"""Translate the exceptions of a store's engine and of the file system to RegistryError.

A caller catches RegistryError; it cannot know what redis, psycopg or the kernel raise. Programming
errors (TypeError, KeyError …) are passed on unchanged: no caller could act on them.
"""

from __future__ import annotations

import errno
import getpass
import os
import shlex
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from contextlib import contextmanager, suppress
from contextvars import copy_context
from dataclasses import replace
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar

from registry_api.deadline import answer_within, note_wait, waited
from registry_api.errors import NotPermitted, OutcomeUnknown, RegistryError, Unavailable
from registry_api.location import HIDDEN, public
from registry_api.store import RegistryStore, StoreInfo
from registry_api.wrapper import StoreWrapper

__all__ = ["Border", "answered", "hide", "owner_of", "typed", "typed_errors"]

T = TypeVar("T")
# Calls that may take minutes and must not continue after their caller gave up: they have no time
# limit. A short call, which has one, precedes each of them.
_LONG = {"apply_all", "replace"}
_FORBIDDEN = {errno.EACCES, errno.EPERM}


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


def hide(error: RegistryError, secrets: Sequence[str]) -> None:
    """Hide credentials in an error's texts."""
    for secret in secrets:
        error.message = error.message.replace(secret, HIDDEN)
        error.next_step = error.next_step.replace(secret, HIDDEN)
        error.args = tuple(
            a.replace(secret, HIDDEN) if isinstance(a, str) else a for a in error.args
        )


@contextmanager
def typed_errors() -> Iterator[None]:
    """Translate file system errors raised inside to RegistryError."""
    try:
        yield
    except (OSError, RegistryError) as error:
        found = typed(error)
        if found is None or found is error:
            raise
        raise found from error


def typed(error: Exception, *, store: str = "", op: str = "") -> RegistryError | None:
    """Return the RegistryError for an exception, None for a programming error."""
    cause = error.__cause__ if isinstance(error, Unavailable) else error
    if isinstance(cause, OSError) and cause.errno in _FORBIDDEN and cause.filename:
        return _not_permitted(Path(os.fsdecode(cause.filename)))
    if isinstance(error, RegistryError):
        return error
    if not isinstance(error, OSError) and type(error).__module__ == "builtins":
        return None
    where = f"the store {store!r} failed: " if store else ""
    if isinstance(error, OSError) and error.strerror:
        what = f"{where}{error.filename or 'the file system'}: {error.strerror}"
    else:
        what = f"{where}{type(error).__name__}: {error}"
    if op == "commit":
        return OutcomeUnknown(
            what, next_step="Commit the same changeset again to learn whether it was applied"
        )
    return Unavailable(what, next_step="Fix the cause named in the message, then try again")


def _not_permitted(path: Path) -> NotPermitted:
    there = next((p for p in (path, *path.parents) if os.path.lexists(p)), path)
    owner = owner_of(there)
    return NotPermitted(
        f"{there} belongs to {owner}; {_user()} has no permission for this",
        next_step=f"Run the command as the owner: sudo -u {shlex.quote(owner)} registry-backend …",
        owner=owner,
    )


def owner_of(path: Path) -> str:
    """Return the name of a file's owner, or its number."""
    try:
        return path.owner()
    except (KeyError, OSError, NotImplementedError):
        with suppress(OSError):
            return f"#{path.lstat().st_uid}"
        return "another user"


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return f"user {os.geteuid()}"  # a container whose user has no passwd entry
