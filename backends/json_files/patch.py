"""How a document's bytes become the next ones: only what differs is kept and written.

A patch that knows the text it is made for also knows what a write of it leaves where it is cut off:
pages of the text after and then of the text before, or each sector of the one or the other.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

__all__ = ["Over", "Patch", "same_behind", "same_in_front"]

_SECTOR = 512  # bytes that a disk writes whole
_PAGE = 4096  # between two of them a kernel ends the write of a process that is killed


@dataclass(frozen=True, slots=True, kw_only=True)
class Over:
    """The text that a patch is made for: its ``size``, the bytes that ``data`` replaces (``gone``),
    and how many bytes at the end of ``data`` are its old end, moved (``kept``).
    """

    size: int
    gone: bytes
    kept: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Patch:
    """``size`` bytes: what was there up to ``start``, then ``data``, then what was there behind it.
    Where the size changes, ``data`` reaches to the end.

    ``over`` None: made for no text that is known, ``data`` is the whole. ``first``: byte 0, in
    intents of an earlier version, which wrote NUL there meanwhile.
    """

    start: int
    data: bytes
    size: int
    over: Over | None = None
    first: bytes = b""

    @classmethod
    def whole(cls, after: bytes) -> Self:
        """Return the patch that takes nothing from what was there."""
        return cls(start=0, data=after, size=len(after))

    @classmethod
    def between(cls, before: bytes, after: bytes) -> Self:
        """Return the smallest patch from one document to another."""
        start, end = same_in_front(before, after), len(after)
        kept = same_behind(before, after, start)
        gone = before[start : len(before) - kept]
        if len(before) == end:
            end, kept = end - kept, 0
        over = Over(size=len(before), gone=gone, kept=kept)
        return cls(start=start, data=after[start:end], size=len(after), over=over)

    def applied(self, there: bytes) -> bytes:
        """Return the document after it; ``there`` may be one that was torn in being written."""
        front = self.first + there[len(self.first) : self.start]
        return front + self.data + there[self.start + len(self.data) : self.size]

    def undone(self, there: bytes) -> bytes:
        """Return the document before it, of the one after it or one torn in between."""
        assert self.over is not None
        before = there[: self.start] + self._gone()
        return before + there[len(before) : self.over.size]

    def _gone(self) -> bytes:
        assert self.over is not None
        return self.over.gone + self.data[len(self.data) - self.over.kept :]

    def is_torn(self, there: bytes, *, rebooted: bool) -> bool:
        """Return whether a text is what a write of this patch left that was cut off: by a kill,
        between two pages, or, where the machine was ``rebooted``, by a power loss; also one that
        parses, and the whole text before or after. What lies around the patch is not looked at.
        """
        over = self.over
        if over is None:
            return there[:1] == b"\x00"
        if not min(over.size, self.size) <= len(there) <= max(over.size, self.size):
            return False
        gone = self._gone()
        width = max(len(gone), len(self.data))
        # Room is blank, or NUL where a power loss kept the length and not the blanks.
        found = there[self.start : self.start + width].replace(b"\x00", b" ").ljust(width)
        before, after = (text[: len(there) - self.start].ljust(width) for text in (gone, self.data))
        done = same_in_front(found, after)
        page = max(0, done - (self.start + done) % _PAGE)
        if found[page:] == before[page:] or found == after:
            return True
        if not rebooted:
            return False
        ends = range(_SECTOR - self.start % _SECTOR, width + _SECTOR, _SECTOR)
        sectors = (slice(max(0, end - _SECTOR), end) for end in ends)
        return all(found[s] in (after[s], before[s]) for s in sectors)


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


def same_behind(a: bytes, b: bytes, start: int) -> int:
    """Return how many bytes at the end of two texts are the same, of those behind ``start``."""
    left, right = len(a), len(b)
    low, high = 0, min(left, right) - start  # so many are the same, and more than so many are not
    while low < high:
        middle = (low + high + 1) // 2
        if a[left - middle : left - low] == b[right - middle : right - low]:
            low = middle
        else:
            high = middle - 1
    return low
