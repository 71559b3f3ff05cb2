"""The length of SQLite's write-ahead log: its file keeps its size when the log begins again.

The format is public: https://www.sqlite.org/walformat.html
"""

from __future__ import annotations

import os
import struct

__all__ = ["has_frames"]

_HEADER = struct.Struct(">8xI4x8s")  # of the file: page size, salts
_SALTS = struct.Struct(">8x8s")  # of a frame: its page's number, a size, then the salts
_BEGIN, _FRAME = 32, 24  # bytes of the file's and of a frame's header


def has_frames(fd: int, count: int) -> bool:
    """Return whether the log in this file is at least ``count`` frames (changed pages) long.

    Frames of an earlier log have other salts than the file's header.
    """
    header = os.pread(fd, _HEADER.size, 0)
    if len(header) < _HEADER.size:
        return False
    page, salts = _HEADER.unpack(header)
    place = _BEGIN + (count - 1) * (_FRAME + page)
    frame = os.pread(fd, _SALTS.size, place)
    return len(frame) == _SALTS.size and _SALTS.unpack(frame)[0] == salts
