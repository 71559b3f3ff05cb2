"""How a document's bytes become the next ones: only what differs is kept and written."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

__all__ = ["Patch", "same_behind", "same_in_front"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Patch:
    """``size`` bytes: ``first``, then what was there up to ``start``, then ``data``, then what was
    there behind it. Where the size changes, ``data`` reaches to the end.
    """

    first: bytes
    start: int
    data: bytes
    size: int

    @classmethod
    def whole(cls, after: bytes) -> Self:
        """Return the patch that takes nothing from what was there."""
        return cls(first=after[:1], start=1, data=after[1:], size=len(after))

    @classmethod
    def between(cls, before: bytes, after: bytes) -> Self:
        """Return the smallest patch from one document to another."""
        start = max(1, same_in_front(before, after))
        end = len(after)
        if len(before) == end:
            end = max(start, end - same_behind(before, after))
        return cls(first=after[:1], start=start, data=after[start:end], size=len(after))

    def applied(self, there: bytes) -> bytes:
        """Return the document after it; ``there`` may be one that was torn in being written."""
        tail = there[self.start + len(self.data) : self.size]
        return self.first + there[1 : self.start] + self.data + tail


def same_in_front(a: bytes, b: bytes) -> int:
    """Return how many bytes two texts have in common from the beginning."""
    low, high = 0, min(len(a), len(b))
    while low < high:
        middle = (low + high + 1) // 2
        if a[low:middle] == b[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def same_behind(a: bytes, b: bytes) -> int:
    """Return how many bytes at the end of two texts of one length are the same."""
    low, high = 0, len(a)  # what is the same begins between these
    while low < high:
        middle = (low + high) // 2
        if a[middle:high] == b[middle:high]:
            high = middle
        else:
            low = middle + 1
    return len(a) - high
