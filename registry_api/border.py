"""The border to a store's engine and to the file system: what they raise becomes an error of ours.

A caller catches RegistryError; it cannot know what redis, psycopg or the kernel raise. Faults in a
program (TypeError, KeyError …) are passed on as they are: no caller could act on them.
"""

from __future__ import annotations

import errno
import getpass
import os
import shlex
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar

from registry_api.errors import NotPermitted, OutcomeUnknown, RegistryError, Unavailable
from registry_api.wrapper import StoreWrapper

__all__ = ["Border", "owner_of", "typed", "typed_errors"]

T = TypeVar("T")
_FORBIDDEN = {errno.EACCES, errno.EPERM}


class Border(StoreWrapper):
    """Passes everything to ``inner``, its optional protocols too; types what it raises."""

    def around(self, op: str, call: Callable[[], T]) -> T:
        """Run one call."""
        try:
            return call()
        except Exception as error:
            found = typed(error, store=self.inner.info.name, op=op)
            if found is None or found is error:
                raise
            raise found from error

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


@contextmanager
def typed_errors() -> Iterator[None]:
    """Type what the file system raises inside."""
    try:
        yield
    except (OSError, RegistryError) as error:
        found = typed(error)
        if found is None or found is error:
            raise
        raise found from error


def typed(error: Exception, *, store: str = "", op: str = "") -> RegistryError | None:
    """Return the error of ours that an exception stands for; None: a fault in a program."""
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
        return OutcomeUnknown(what, next_step="Commit the same changeset again to learn which")
    return Unavailable(what, next_step="See the message, then try again")


def _not_permitted(path: Path) -> NotPermitted:
    there = next((p for p in (path, *path.parents) if os.path.lexists(p)), path)
    owner = owner_of(there)
    return NotPermitted(
        f"{there} belongs to {owner}; {_user()} may not use it so",
        next_step=f"Run it as its owner: sudo -u {shlex.quote(owner)} registry-backend …",
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
        return f"user {os.geteuid()}"  # a container without an entry for its user
