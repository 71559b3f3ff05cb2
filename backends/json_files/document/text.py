"""Read the bytes of a document, hash them, and format a document as text."""

from __future__ import annotations

import hashlib
import os
from typing import Any

from registry_api.records import json_text

__all__ = ["content_hash", "read_document", "text_over"]


def content_hash(data: bytes) -> str:
    """Return the hash that identifies a document's bytes: SHA-256, hex."""
    return hashlib.sha256(data).hexdigest()


def text_over(old: bytes, document: dict[str, Any]) -> bytes:
    """Return a document's text, padded with blanks to at least the length of the old text.

    Truncating the file instead would let a reader without a lock find NUL bytes at its end.
    """
    return json_text.dump(document, indent=True).ljust(len(old))


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
