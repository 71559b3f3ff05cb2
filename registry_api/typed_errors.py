"""What an engine or the file system raises, as an error of this package."""

from __future__ import annotations

import errno
import getpass
import os
import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from registry_api.errors import NotPermitted, OutcomeUnknown, RegistryError, Unavailable
from registry_api.workspace.store_location import HIDDEN

__all__ = ["hide", "owner_of", "typed", "typed_errors"]

_FORBIDDEN = {errno.EACCES, errno.EPERM}


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
