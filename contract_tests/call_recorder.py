"""Record the calls to the stores under test and their answers, to show them with a failure."""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import fields
from typing import Any, NamedTuple, cast

from registry_api import (
    Agent,
    Changeset,
    Commit,
    Head,
    Page,
    Put,
    RecordQuery,
    RegistryStore,
    TaskQuery,
    TaskSnapshot,
    TaskSummary,
    record_key,
)
from registry_api.records import KINDS

__all__ = ["History", "recorded_calls"]

_LAST = 60
_WIDTH = 160


class History:
    """The last calls of one test, in the order in which they were answered."""

    def __init__(self) -> None:
        self._calls: deque[tuple[str, str, str, tuple[Any, ...], Any]] = deque(maxlen=_LAST)
        self._stores = 0

    def another(self) -> str:
        """Return a name for a store that is being opened."""
        self._stores += 1
        return f"store {self._stores}"

    def clear(self) -> None:
        """Drop the calls that were made before the test began."""
        self._calls.clear()

    def note(self, store: str, method: str, arguments: tuple[Any, ...], answer: Any) -> None:
        """Keep a call; it is formatted only when the history is printed."""
        self._calls.append((threading.current_thread().name, store, method, arguments, answer))

    def __str__(self) -> str:
        lines = []
        for thread, store, method, arguments, answer in tuple(self._calls):
            asked = ", ".join(_said(a) for a in arguments)
            who = store if thread == "MainThread" else f"{store}, {thread}"
            lines.append(f"{who}: {method}({asked}) -> {_said(answer)}")
        return "\n".join(lines)


def recorded_calls(store: RegistryStore, history: History) -> RegistryStore:
    """Return the store in a wrapper that records each call and its outcome."""
    return cast("RegistryStore", _CallRecorder(store, history))


class _CallRecorder:
    """A proxy with exactly the store's attributes, so that ``find_capability`` finds the same."""

    def __init__(self, store: RegistryStore, history: History, name: str = "") -> None:
        self._store = store
        self._history = history
        self._name = name or history.another()

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._store, name)
        if name == "inner":  # find_capability searches here
            return _CallRecorder(found, self._history, self._name)
        if not callable(found):
            return found

        def call(*args: Any, **kwargs: Any) -> Any:
            asked = (*args, *(_Named(k, v) for k, v in kwargs.items()))
            try:
                answer = found(*args, **kwargs)
            except BaseException as error:
                self._history.note(self._name, name, asked, error)
                raise
            self._history.note(self._name, name, asked, answer)
            return answer

        return call


class _Named(NamedTuple):
    name: str
    value: Any


def _said(value: Any) -> str:
    """Format any value in a few words; never raises, since a test may send anything."""
    try:
        text = _in_words(value)
    except Exception:  # noqa: BLE001  (whatever it raises is reported)
        text = object.__repr__(value)
    return text if len(text) <= _WIDTH else text[:_WIDTH] + "…"


def _named(item: Any) -> str:
    match item:
        case Agent():
            return f"{item.agent_id} {item.status} {item.progress}"
        case TaskSummary():
            return f"{item.task_id} {item.status} at {item.revision}"
        case _:
            return record_key(item)


def _in_words(value: Any) -> str:
    match value:
        case _Named():
            return f"{value.name}={_in_words(value.value)}"
        case Changeset():
            ops = ", ".join(
                f"put {KINDS[type(op.record)]} {record_key(op.record)}"
                if isinstance(op, Put)
                else f"delete {op.kind} {op.key}"
                for op in value.ops
            )
            text = f"{value.task_id} at {value.expected}: {ops}; id {value.id}"
        case Commit():
            text = f"revision {value.revision}, number {value.cursor.number}"
            text += ", replayed" if value.replayed else ""
        case TaskSnapshot():
            agents = ", ".join(_named(a) for a in value.agents)
            text = f"revision {value.revision}; agents {agents or 'none'}"
        case Head():
            text = f"revision {value.revision}, number {value.number}"
        case Page():
            items = ", ".join(_named(item) for item in value.items[:8])
            text = f"{len(value.items)} items: {items}{', and more' if value.next else ''}"
        case RecordQuery() | TaskQuery():
            asked = ((f.name, getattr(value, f.name)) for f in fields(value))
            given = ((name, v) for name, v in asked if v is not None and v is not False)
            text = " ".join(f"{name}={v}" for name, v in given) or "all"
        case BaseException():
            text = f"{type(value).__name__}: {value}"
        case tuple() if value and hasattr(value[0], "revision"):
            text = f"changes of revision {', '.join(str(c.revision) for c in value)}"
        case str():
            text = value
        case _:
            text = repr(value)
    return text
