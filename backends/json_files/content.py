"""The bytes of a document: read, written as text, and known by their hash."""

from __future__ import annotations

import hashlib
import os
from typing import Any

from registry_api import jsontext

__all__ = ["content_hash", "read_document", "text_over"]


def content_hash(data: bytes) -> str:
    """Return the hash by which a document's bytes are known: SHA-256, hex."""
    return hashlib.sha256(data).hexdigest()


def text_over(old: bytes, document: dict[str, Any]) -> bytes:
    """Return a document's text, at least as long as the one it replaces: blanks follow, since a
    reader without a lock finds NUL where a file is cut off under it.
    """
    return jsontext.dump(document, indent=True).ljust(len(old))


def read_document(fd: int) -> bytes:
    """Return the bytes of an open document, whatever its descriptor's position."""
    size = os.fstat(fd).st_size
    parts, offset = [], 0
    while offset < size:
        part = os.pread(fd, size - offset, offset)
        if not part:
            break
        parts.append(part)
        offset += len(part)
    return b"".join(parts)
