"""What the programs write to their log: one line an event, as text or JSON, without secrets.

Every value passes one place that removes what looks like a secret, and the text of prompts. Code
logs as usual, with ``logging``; what is in ``extra=`` (task, actor, changeset) becomes fields.
"""

from __future__ import annotations

import logging
import sys
from typing import Any

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from orchestrator.redaction import redacted

__all__ = ["configure_log"]

_LONGEST = 2000  # characters of one value
_NEVER = frozenset({"prompt", "secret", "token", "environment"})


def configure_log(*, level: str, as_json: bool) -> None:
    """Send the log of this process to standard error, from this level on."""
    shared: list[Processor] = [
        structlog.stdlib.add_log_level,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        _redact,
    ]
    if as_json:
        last: Processor = structlog.processors.JSONRenderer(ensure_ascii=True)
    else:
        last = structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), sort_keys=False)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, last],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)  # of libraries
    logging.getLogger("registry_backend").setLevel(level.upper())


def _redact(_logger: WrappedLogger, _name: str, event: EventDict) -> EventDict:
    """Remove secrets, prompts and control characters from every value."""
    return {name: _shown(name, value) for name, value in event.items()}


def _shown(name: str, value: Any) -> Any:
    if name in _NEVER:
        return "[not logged]"
    if isinstance(value, (int, float)) or (name.startswith("_") and not isinstance(value, str)):
        return value
    text = redacted(str(value))[:_LONGEST]
    # A line break in a message would look like another event; a traceback has its own.
    kept = "\n" if name == "exception" else ""
    return "".join(c if c.isprintable() or c in kept else " " for c in text)
