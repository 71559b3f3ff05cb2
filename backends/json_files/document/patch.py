"""The difference between two texts of a document: only what differs is stored and written.

A patch made for a known text recognises what an interrupted write of it leaves: pages of the new
text followed by pages of the old one, or, after a power loss, any mixture of sectors of both.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

__all__ = ["Over", "Patch", "same_behind", "same_in_front"]

_SECTOR = 512  # bytes that a disk writes completely or not at all
_PAGE = 4096  # a kill interrupts a write only between two of them


@dataclass(frozen=True, slots=True, kw_only=True)
class Over:
    """The old text that a patch is made for.

    ``size`` is its length and ``gone`` the bytes that ``data`` replaces. The last ``kept`` bytes of
    ``data`` are the end of the old text, moved.
    """

    size: int
    gone: bytes
    kept: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Patch:
    """A new text of ``size`` bytes: the old ones up to ``start``, ``data``, then old ones again.

    If the size changes, ``data`` reaches to the end. ``over`` None: the old text is unknown, and
    ``data`` is the whole new text. ``first``: byte 0, in intents of an earlier version, which kept
    NUL there during the write.
    """

    start: int
    data: bytes
    size: int
    over: Over | None = None
    first: bytes = b""

    @classmethod
    def whole(cls, after: bytes) -> Self:
        """Return the patch that replaces the whole text."""
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
        """Return the new text; ``there`` is the old text, or one torn while it was written."""
        front = self.first + there[len(self.first) : self.start]
        return front + self.data + there[self.start + len(self.data) : self.size]

    def undone(self, there: bytes) -> bytes:
        """Return the old text; ``there`` is the new text, or one torn while it was written."""
        assert self.over is not None
        before = there[: self.start] + self._gone()
        return before + there[len(before) : self.over.size]

    def _gone(self) -> bytes:
        assert self.over is not None
        return self.over.gone + self.data[len(self.data) - self.over.kept :]

    def is_torn(self, there: bytes, *, rebooted: bool) -> bool:
        """Return whether a text is what an interrupted write of this patch leaves.

        A kill interrupts it between two pages; if the machine was ``rebooted``, a power loss may
        have mixed sectors. A torn text that parses counts, and so do the complete old and new
        texts. Bytes outside the patch are not compared.
        """
        over = self.over
        if over is None:
            return there[:1] == b"\x00"
        if not min(over.size, self.size) <= len(there) <= max(over.size, self.size):
            return False
        gone = self._gone()
        width = max(len(gone), len(self.data))
        # Reserved space is blank, or NUL if a power loss kept the length but not the blanks.
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
    """Return how many bytes at the end of two texts are the same, of those after ``start``."""
    left, right = len(a), len(b)
    low, high = 0, min(left, right) - start  # low: surely the same, high: at most
    while low < high:
        middle = (low + high + 1) // 2
        if a[left - middle : left - low] == b[right - middle : right - low]:
            low = middle
        else:
            high = middle - 1
    return low
