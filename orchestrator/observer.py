"""The listener to calls, starts, ends and scans; the default one ignores them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from registry_api import Agent

if TYPE_CHECKING:
    from orchestrator.health.scan import Scan

__all__ = ["Observer"]


class Observer:
    """A listener that does nothing; ``Metrics`` counts."""

    @contextmanager
    def call(self, tool: str) -> Iterator[Callable[[str], None]]:
        """Surround the call of a tool; the function takes its outcome, ``ok`` or a code."""
        yield lambda _outcome: None

    def started(self, launcher: str) -> None:
        """Take note that an agent was started."""

    def ended(self, agent: Agent) -> None:
        """Take note that an agent has ended."""

    def scanned(self, scan: Scan | None, seconds: float) -> None:
        """Take note of a turn of the health daemon; None: another daemon scans."""
