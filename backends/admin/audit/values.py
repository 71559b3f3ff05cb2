"""What an expression of an audited program may hold, as far as registries are concerned."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TypeAlias

__all__ = [
    "SOME",
    "Argument",
    "Content",
    "Data",
    "Folder",
    "Locked",
    "Opened",
    "Origin",
    "PathTo",
    "Value",
    "as_data",
    "as_opened",
    "as_path",
    "element",
    "origin_of",
    "sure",
]


@dataclass(frozen=True, slots=True)
class Argument:
    """What a caller passes: the parameter's index in a function, which has a number."""

    function: int
    index: int


Origin: TypeAlias = frozenset[str] | Argument
"""Where a value comes from: from files of these names, or from what a caller passes."""


@dataclass(frozen=True, slots=True)
class PathTo:
    """The path of a registry file; ``folder``: the expression of the folder, if it is known."""

    origin: Origin
    folder: str = ""


@dataclass(frozen=True, slots=True)
class Opened:
    """An open registry file; ``line`` is that of the call."""

    origin: Origin
    line: int


@dataclass(frozen=True, slots=True)
class Locked:
    """A locked registry file, before ``with`` gives its registry and its handle."""

    origin: Origin
    line: int


@dataclass(frozen=True, slots=True)
class Content:
    """The text of a registry file."""

    origin: Origin


@dataclass(frozen=True, slots=True)
class Data:
    """A registry, or the part of it below ``keys``."""

    origin: Origin
    keys: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Folder:
    """A task's folder that was found by its registry."""

    origin: Origin


Value: TypeAlias = PathTo | Opened | Locked | Content | Data | Folder | Argument | None

SOME: Origin = frozenset({""})
"""A registry, of which the name is not known."""


def as_path(value: Value) -> PathTo | None:
    """Return a value as the path of a registry, None if it cannot be one."""
    if isinstance(value, Argument):
        return PathTo(value)
    return value if isinstance(value, PathTo) else None


def as_data(value: Value) -> Data | None:
    """Return a value as a registry, None if it cannot be one."""
    if isinstance(value, Argument):
        return Data(value)
    return value if isinstance(value, Data) else None


def as_opened(value: Value) -> Opened | None:
    """Return a value as an open registry file, None if it cannot be one; line 0: a parameter's."""
    if isinstance(value, Argument):
        return Opened(value, 0)
    return value if isinstance(value, Opened) else None


def element(value: Value) -> Value:
    """Return what an iteration over a value gives."""
    if isinstance(value, PathTo):
        return value  # of a list of paths
    data = as_data(value)
    if data is None:
        return None
    return data if data.keys[-1:] == ("*",) else replace(data, keys=(*data.keys, "*"))


def origin_of(value: Value) -> Origin:
    """Return where a value comes from; empty if that is not known."""
    if isinstance(value, Argument):
        return value
    return value.origin if isinstance(value, PathTo | Data | Opened | Content) else frozenset()


def sure(origin: Origin) -> Origin:
    """Return the origin of what is a registry whatever a caller passes."""
    return origin if isinstance(origin, frozenset) and origin else SOME
