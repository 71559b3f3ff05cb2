"""Provoke race conditions: switch threads often and delay calls that write files."""

from __future__ import annotations

import os
import random
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

__all__ = ["amplified_races"]

_CALLS = ("write", "pwrite", "fsync", "replace", "rename", "ftruncate")
_INTERVAL = 1e-5  # seconds between thread switches; Python's default is 5 ms
_MOST = 0.001  # seconds, the longest delay of a call
_SHARE = 0.2  # fraction of the calls that are delayed


@contextmanager
def amplified_races() -> Iterator[None]:
    """Amplify races in this process until the end of the block."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(_INTERVAL)
    try:
        with ExitStack() as stack:
            for name in _CALLS:
                stack.enter_context(mock.patch.object(os, name, _slowly(getattr(os, name))))
            yield
    finally:
        sys.setswitchinterval(before)


def _slowly(call: Callable[..., Any]) -> Callable[..., Any]:
    def slow(*args: Any, **kwargs: Any) -> Any:
        if random.random() < _SHARE:
            time.sleep(random.random() * _MOST)
        return call(*args, **kwargs)

    return slow
