"""The orchestrator's metrics for Prometheus, beside those of the store."""

from __future__ import annotations

import hmac
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import perf_counter
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from orchestrator.observer import Observer
from registry_api import Agent, RegistryStore, Settings
from registry_api.diagnostics import metrics as store_metrics
from registry_api.errors import RegistryError

if TYPE_CHECKING:
    from orchestrator.health.scan import Scan

__all__ = ["Metrics", "is_permitted"]

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 60)


class Metrics(Observer):
    """The counters of one process; ``text`` adds what the registry holds now."""

    def __init__(self, store: RegistryStore, settings: Settings) -> None:
        self._store = store
        self._settings = settings
        registry = self._registry = CollectorRegistry()
        prefix = "registry_orchestrator"
        self._calls = Histogram(
            f"{prefix}_call_seconds",
            "Calls of tools, by tool and outcome: ok, or the code of a refusal",
            ["tool", "outcome"],
            buckets=_SECONDS,
            registry=registry,
        )
        self._started = Counter(
            f"{prefix}_agents_started", "Agents that were started", ["launcher"], registry=registry
        )
        self._ended = Counter(
            f"{prefix}_agents_ended", "Agents that ended, by status", ["status"], registry=registry
        )
        self._scans = Histogram(
            f"{prefix}_scan_seconds", "Health scans", buckets=_SECONDS, registry=registry
        )
        self._corrected = Counter(
            f"{prefix}_scan_corrections", "What health scans corrected", ["what"], registry=registry
        )
        self._leads = Gauge(
            f"{prefix}_health_leader",
            "1 if this process scans for its host, else 0",
            registry=registry,
        )
        self._late = Gauge(
            f"{prefix}_late_writes",
            "Late writes by other programs, after the cut-over of a move, not yet dealt with",
            registry=registry,
        )
        self._tasks = Gauge(f"{prefix}_active_tasks", "Active tasks", registry=registry)
        self._agents = Gauge(f"{prefix}_active_agents", "Active agents", registry=registry)

    @contextmanager
    def call(self, tool: str) -> Iterator[Callable[[str], None]]:
        """See Observer.call."""
        began, outcome = perf_counter(), ["failed"]
        try:
            yield lambda said: outcome.__setitem__(0, said)
        finally:
            self._calls.labels(tool, outcome[0]).observe(perf_counter() - began)

    def started(self, launcher: str) -> None:
        """See Observer.started."""
        self._started.labels(launcher).inc()

    def ended(self, agent: Agent) -> None:
        """See Observer.ended."""
        self._ended.labels(str(agent.status)).inc()

    def scanned(self, scan: Scan | None, seconds: float) -> None:
        """See Observer.scanned."""
        self._leads.set(scan is not None)
        if scan is None:
            return
        self._scans.observe(seconds)
        for what in ("ended", "overdue", "stopped", "started"):
            self._corrected.labels(what).inc(len(getattr(scan, what)))
        if scan.late_writes is not None:
            self._late.set(len(scan.late_writes))

    def text(self) -> bytes:
        """Return all metrics in Prometheus' text format; those of the store, too."""
        try:
            counts = self._store.counts()
            self._tasks.set(counts.active_tasks)
            self._agents.set(counts.active_agents)
        except RegistryError:  # away for a time: what is known is told
            self._tasks.set(float("nan"))
            self._agents.set(float("nan"))
        of_store = "".join(f"{line}\n" for line in store_metrics(self._settings))
        return generate_latest(self._registry) + of_store.encode()


def is_permitted(header: str, tokens: tuple[str, ...]) -> bool:
    """Return whether an Authorization header holds one of these tokens, in constant time."""
    kind, _, given = header.partition(" ")
    told = given.strip().encode("utf-8", "surrogateescape")
    fits = [hmac.compare_digest(told, token.encode()) for token in tokens]
    return kind.lower() == "bearer" and any(fits)
