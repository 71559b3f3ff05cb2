"""The health daemon: on each host one process scans at a time, chosen by a lease.

The lease of a host also tells other hosts whether anybody looks after its agents: without it they
are ``lost``, which is derived and changes no record.
"""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

from orchestrator.agents import process_identity
from orchestrator.health.hosts import lease_name
from orchestrator.health.scan import HealthScan, Scan
from orchestrator.log_retention import apply_retention
from orchestrator.service import Orchestrator
from registry_api.client import compactable
from registry_api.errors import NotSupported, RegistryError
from registry_api.leases import Lease, Leases, leases_of

__all__ = ["HealthDaemon", "running_daemon", "scan_at_start"]

log = logging.getLogger("registry_backend")
_CLEANING = 3600.0  # seconds from one clean-up of logs and of the feed to the next
_COMPACTING = 5.0  # seconds for which the feed is compacted at a time: no scan runs meanwhile
_LOOKING = 60.0  # seconds from one look for late writes to the next at least
_IDLE = (
    200  # the next look comes after so many times the time that one took: it asks every document
)
LEASE = 15.0  # seconds for which a lease is taken at least: hosts are busy


class HealthDaemon:
    """Scans at an interval as long as it holds the lease of its host.

    ``clock`` counts seconds and is never set. A daemon that does not get the lease asks again at
    each interval, so another one takes over at most one interval after the lease has run out.
    """

    def __init__(
        self,
        service: Orchestrator,
        *,
        interval: float | None = None,
        lease_seconds: float | None = None,
        clock: Callable[[], float] = time.monotonic,
        told: Callable[[Scan], None] = lambda _scan: None,
    ) -> None:
        self.interval = service.options.health_interval if interval is None else interval
        self._lease_seconds = lease_seconds or max(3 * self.interval, LEASE)
        self._service = service
        self._leases = _leases_of(service)
        self._clock = clock
        self._told = told
        self._holder = uuid.uuid4().hex
        self._name = lease_name(process_identity.host())
        self._lease: Lease | None = None
        self._until = 0.0
        self._clean_at = self._look_at = 0.0
        self._late_writes = frozenset[str]()
        self._compacted = 0  # up to which number of the feed
        self._stop = threading.Event()

    @property
    def leads(self) -> bool:
        """Whether this daemon holds the lease, by its own clock."""
        return self._lease is not None and self._clock() < self._until

    def turn(self) -> Scan | None:
        """Scan once if this daemon gets the lease; None if another one holds it."""
        observer = self._service.observer
        if not self._renew():
            observer.scanned(None, 0.0)
            return None
        assert self._lease is not None
        scan = HealthScan(self._service, may_act=self._may_act, actor=f"health-{self._lease.token}")
        began = self._clock()
        look = began >= self._look_at
        found = scan.run(late_writes=look)
        if look:
            now = self._clock()
            self._look_at = now + max(_LOOKING, _IDLE * (now - began))
        observer.scanned(found, self._clock() - began)
        self._told(self._with_news(found))
        if self._clock() >= self._clean_at and self._may_act():
            self._clean_at = self._clock() + _CLEANING
            self._clean()
            self._compact()
        return found

    def _with_news(self, scan: Scan) -> Scan:
        """Leave out the late writes that were told before, and log the others."""
        if scan.late_writes is None:
            return scan
        new = tuple(path for path in scan.late_writes if path not in self._late_writes)
        self._late_writes = frozenset(scan.late_writes)
        for path in new:
            log.warning("%s: a late write by another program; see registry-backend doctor", path)
        return replace(scan, late_writes=new)

    def _clean(self) -> None:
        try:
            apply_retention(self._service)
        except (RegistryError, OSError) as error:
            log.warning("logs were not cleaned up: %s", error)

    def _compact(self) -> None:
        """Drop expired lines of the feed for some seconds; the next time it goes on from there."""
        end = self._clock() + _COMPACTING
        try:
            while self._clock() < end and self._may_act():
                found = compactable(self._service.store).compact(self._compacted)
                self._compacted = found.after or 0
                if found.after is None:
                    return
        except NotSupported:
            return  # the store keeps its whole feed
        except (RegistryError, OSError) as error:
            log.warning("the feed was not compacted: %s", error)

    def run(self) -> None:
        """Scan until ``stop`` is called; a store that is away for a time ends nothing."""
        while not self._stop.is_set():
            try:
                self.turn()
            except RegistryError as error:
                log.warning("the health scan failed and is tried again: %s", error)
                self._service.observer.scanned(None, 0.0)
            except Exception:
                log.exception("the health scan failed and is tried again")
                self._service.observer.scanned(None, 0.0)
            self._stop.wait(self.interval)
        self._release()
        self._service.observer.scanned(None, 0.0)

    def stop(self) -> None:
        """End ``run`` after the scan that is under way."""
        self._stop.set()

    def _renew(self) -> bool:
        began, seconds = self._clock(), self._lease_seconds
        if self._leases is None:
            self._lease = Lease(name=self._name, holder=self._holder, token=0, seconds=seconds)
            self._until = began + seconds
            return True
        self._lease = self._leases.acquire_lease(self._name, self._holder, seconds=seconds)
        self._until = began + seconds
        return self._lease is not None

    def _may_act(self) -> bool:
        """Renew the lease in the middle of a long scan; False once another process may have it."""
        if self._stop.is_set():
            return False
        if self._until - self._clock() > self._lease_seconds / 2:
            return self._lease is not None
        try:
            return self._renew()
        except RegistryError:
            return self.leads

    def _release(self) -> None:
        lease, self._lease = self._lease, None
        if lease is not None and self._leases is not None:
            try:
                self._leases.release_lease(lease)
            except RegistryError as error:
                log.info("the lease %s was not given up, it ends by itself: %s", lease.name, error)


def _leases_of(service: Orchestrator) -> Leases | None:
    """Return the leases; None for a store that has none, since it ends with its one process."""
    try:
        return leases_of(service.store)
    except NotSupported:
        return None


def scan_at_start(service: Orchestrator) -> None:
    """Scan once, whoever holds the lease; a scan that fails keeps no server from starting.

    The daemon looks for late writes: that takes seconds in a large registry.
    """
    try:
        HealthScan(service).run(late_writes=False)
    except Exception:
        log.exception("the first health scan failed")


@contextmanager
def running_daemon(service: Orchestrator) -> Iterator[HealthDaemon]:
    """Run a daemon on a thread of this process."""
    daemon = HealthDaemon(service)
    thread = threading.Thread(target=daemon.run, name="health", daemon=True)
    thread.start()
    try:
        yield daemon
    finally:
        daemon.stop()
        thread.join()
