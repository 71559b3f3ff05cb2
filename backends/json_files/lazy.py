"""A part of an object that is made on first use and kept in the object."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, Self, TypeVar, overload

__all__ = ["lazy"]

T = TypeVar("T")


class lazy(Generic[T]):  # noqa: N801  (a decorator, as property)
    """As functools.cached_property, but without a lock.

    Up to Python 3.11 that one holds a lock for all objects while it makes a value: a child made by
    fork inherits it as held. Of two threads here both may make a value, and get the same one.
    """

    def __init__(self, make: Callable[[Any], T]) -> None:
        self._make = make
        self.__doc__ = make.__doc__

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    @overload
    def __get__(self, instance: None, owner: type) -> Self: ...
    @overload
    def __get__(self, instance: object, owner: type) -> T: ...
    def __get__(self, instance: object | None, owner: type) -> T | Self:
        if instance is None:
            return self
        found: T = instance.__dict__.setdefault(self._name, self._make(instance))
        return found
