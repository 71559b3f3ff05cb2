"""Hosts of agents: whether a health daemon looks after those of another host.

An agent is judged by the daemon of its own host only. While no daemon of that host holds the lease
the agent is ``lost``: nobody can say whether it runs. That is derived and changes no record; when
the host comes back its agents go on.
"""

from __future__ import annotations

from orchestrator.agents import process_identity
from orchestrator.agents.deployment import process_of
from orchestrator.health.daemon import lease_name
from orchestrator.rules.draft import extra_of
from registry_api import Agent, RegistryStore
from registry_api.errors import NotSupported
from registry_api.leases import leases_of

__all__ = ["Hosts"]


class Hosts:
    """The hosts that agents run on, each looked up once."""

    def __init__(self, store: RegistryStore) -> None:
        self._store = store
        self._known: dict[str, bool] = {process_identity.host(): False}

    def is_lost(self, agent: Agent) -> bool:
        """Return whether nobody looks after the agent's host."""
        host = _host_of(agent)
        if host is None:
            return False
        if host not in self._known:
            try:
                held = leases_of(self._store).lease_holder(lease_name(host))
            except NotSupported:  # a store for reading only
                return False
            self._known[host] = held is None
        return self._known[host]


def _host_of(agent: Agent) -> str | None:
    owner = process_of(agent) or extra_of(agent).get("reserved_by")
    return process_identity.host_of(owner) if isinstance(owner, str) else None
