"""Callers: a conductor, or an agent that proves its identity with a secret.

An agent gets a secret when it is started, only in its environment; its record holds the hash. This
keeps agents from acting in each other's name. It does not protect processes of the same user from
each other: they can read each other's environment and files.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from orchestrator.errors import NotAllowed
from orchestrator.rules.agents import SECRET_HASH, is_unverified
from orchestrator.rules.draft import extra_of
from registry_api import Agent, Kind, Refs, RegistryStore
from registry_api.errors import TaskNotFound
from registry_api.records import is_id

__all__ = [
    "CONDUCTOR",
    "PASS_IT_ON",
    "SECRET",
    "Caller",
    "Role",
    "caller_of",
    "check_acts_as",
    "hash_of",
    "new_secret",
    "prove",
]

SECRET = "REGISTRY_AGENT_SECRET"  # noqa: S105  (the name of a variable)
_PART = "~"  # no id contains it, but a bearer token may


class Role(StrEnum):
    """The role of a caller; each role sees its own tools."""

    CONDUCTOR = "conductor"
    WORKER = "worker"
    REVIEWER = "reviewer"
    UNPROVEN = "unproven"  # an agent's environment without a valid secret


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """A caller; an agent belongs to one task."""

    role: Role
    task_id: str = ""
    agent_id: str = ""


CONDUCTOR = Caller(role=Role.CONDUCTOR)


def new_secret(task_id: str, agent_id: str) -> str:
    """Return a new secret for an agent.

    It contains the agent's ids, so that the secret alone is enough to find the agent.
    """
    return _PART.join((task_id, agent_id, secrets.token_urlsafe(24)))


def hash_of(secret: str) -> str:
    """Return the hash of a secret, as an agent's record holds it."""
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).hexdigest()


def prove(store: RegistryStore, secret: str) -> Caller | None:
    """Return the agent whose secret this is, also if it has ended; None if it is nobody's."""
    task_id, _, rest = secret.partition(_PART)
    agent_id, _, word = rest.partition(_PART)
    if not (is_id(task_id) and is_id(agent_id) and word):
        return None
    only = Refs(kinds=frozenset({Kind.AGENT, Kind.TASK}), agent_ids=frozenset({agent_id}))
    try:
        agent = store.load(task_id, only=only).agent(agent_id)
    except TaskNotFound:
        return None
    known = _hash_in(agent) if agent is not None else None
    if (
        agent is None
        or known is None
        or not hmac.compare_digest(known.encode(), hash_of(secret).encode())
    ):
        return None
    role = Role.REVIEWER if agent.review_id else Role.WORKER
    return Caller(role=role, task_id=task_id, agent_id=agent_id)


def caller_of(
    store: RegistryStore, *, agent: bool = False, env: Mapping[str, str] | None = None
) -> Caller:
    """Return the caller that a program with this environment works for.

    ``agent``: it works for an agent, even if its client passed on none of the agent's environment.
    """
    env = os.environ if env is None else env
    secret, agent_id = env.get(SECRET, ""), env.get("REGISTRY_AGENT_ID", "")
    if not (agent or secret or agent_id):
        return CONDUCTOR
    proven = prove(store, secret)
    return proven or Caller(
        role=Role.UNPROVEN, task_id=env.get("REGISTRY_TASK_ID", ""), agent_id=agent_id
    )


def check_acts_as(caller: Caller, task_id: str, agent_id: str, agent: Agent | None) -> None:
    """Raise NotAllowed unless the caller may act as this agent.

    It may if it proved to be this agent, or if it proved nothing and the agent has no secret: the
    agent runs elsewhere, was started by an earlier version, or was only named by a legacy program
    (``agent`` is None).
    """
    if caller.role in {Role.WORKER, Role.REVIEWER}:
        may = (caller.task_id, caller.agent_id) == (task_id, agent_id)
    else:
        may = agent is None or is_unverified(agent)
    if may:
        return
    raise NotAllowed(
        f"only agent {agent_id} itself may act as {agent_id}",
        next_step=_INSTEAD[caller.role].format(agent_id=caller.agent_id),
    )


def _hash_in(agent: Agent) -> str | None:
    found = extra_of(agent).get(SECRET_HASH)
    return found if isinstance(found, str) else None


PASS_IT_ON = (
    f"An agent's server needs {SECRET} and REGISTRY_TASK_ID from the agent's environment: "
    "configure your client to pass them on"
)
_INSTEAD = {
    Role.CONDUCTOR: "Wait for it or end it with kill_agent; abort_stalled_review ends a review",
    Role.WORKER: "Pass your own id, {agent_id}",
    Role.REVIEWER: "Pass your own id, {agent_id}",
    Role.UNPROVEN: PASS_IT_ON,
}
