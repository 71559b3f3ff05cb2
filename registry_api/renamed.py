"""Names of version 0.1 that are accepted until 0.3; each use warns and names the new one."""

from __future__ import annotations

import sys
import warnings

__all__ = ["new_option", "renamed"]

_NAMES = {
    "Movable": "MigrationSource",
    "Straggler": "LateWrite",
    "accepted": "validate_changeset",
    "commit_surely": "commit_with_retry",
}
_OPTIONS = {"--anyway": "--force"}


def renamed(module: str, name: str) -> object:
    """Return what a module's old name stands for; a module's ``__getattr__``.

    Raises AttributeError where the module has neither the old name nor the new one.
    """
    new = _NAMES.get(name, "")
    found = vars(sys.modules[module]).get(new)
    if found is None:
        raise AttributeError(f"module {module!r} has no attribute {name!r}", name=name)
    warnings.warn(
        f"{module}.{name} is now {module}.{new}; the old name goes with version 0.3",
        DeprecationWarning,
        stacklevel=3,
    )
    return found


def new_option(token: str) -> str:
    """Return a command's option under its present name; says on stderr where it was an old one."""
    name, separator, value = token.partition("=")
    if name not in _OPTIONS:
        return token
    new = _OPTIONS[name]
    sys.stderr.write(f"warning: {name} is now {new}; the old name goes with version 0.3\n")
    return new + separator + value
