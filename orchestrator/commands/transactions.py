"""Run a rule in a transaction, and retry what must be recorded in the end."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable
from datetime import datetime

from orchestrator.errors import AgentNotFound
from orchestrator.observer import Observer
from orchestrator.rules.events import sentence
from registry_api import (
    Agent,
    Commit,
    Kind,
    Op,
    Put,
    Refs,
    RegistryStore,
    TaskSnapshot,
    commit_with_retry,
    new_changeset,
    transact,
)
from registry_api.errors import RegistryError
from registry_api.records import ACTIVE_AGENT, TERMINAL_AGENT

__all__ = ["Rule", "Transactions"]

log = logging.getLogger("registry_backend")
Rule = Callable[[TaskSnapshot], Iterable[Op]]
_PATIENCE = 30.0  # seconds to retry a commit that the store cannot take now
_PAUSE = 1.0
_WHOLE = frozenset({Kind.AGENT, Kind.TASK})


class Transactions:
    """Reads and writes of one store."""

    def __init__(
        self,
        store: RegistryStore,
        now: Callable[[], datetime],
        observer: Observer | None = None,
    ) -> None:
        self.store = store
        self.now = now
        self._observer = observer or Observer()

    def find_agent(self, task_id: str, agent_id: str) -> Agent | None:
        """Return one agent, or None; raises TaskNotFound."""
        return self.only(task_id, agent_id).agent(agent_id)

    def agent(self, task_id: str, agent_id: str) -> Agent:
        """Return one agent; raises TaskNotFound or AgentNotFound."""
        found = self.find_agent(task_id, agent_id)
        if found is None:
            raise AgentNotFound(
                f"task {task_id} has no agent {agent_id!r}",
                next_step="get_task_status lists its agents",
            )
        return found

    def only(self, task_id: str, agent_id: str) -> TaskSnapshot:
        """Return a task with the record of one agent alone; raises TaskNotFound."""
        refs = Refs(kinds=_WHOLE, agent_ids=frozenset({agent_id}))
        return self.store.load(task_id, only=refs)

    def commit(self, task_id: str, ops: Iterable[Op], *, expected: int | None, actor: str) -> None:
        """Commit ops, retrying for a while."""
        changeset = new_changeset(task_id, ops, expected=expected, actor=actor[:64], at=self.now())
        commit = commit_with_retry(self.store, changeset, deadline=time.monotonic() + _PATIENCE)
        self._tell(commit, changeset.ops, actor)

    def run(self, task_id: str, rule: Rule, *, actor: str) -> tuple[Op, ...]:
        """Run a rule in a transaction; returns the ops that it decided."""
        decided: tuple[Op, ...] = ()
        active: set[str] = set()

        def decide(snapshot: TaskSnapshot) -> tuple[Op, ...]:
            nonlocal decided, active
            decided = tuple(rule(snapshot))
            active = {a.agent_id for a in snapshot.agents if a.status in ACTIVE_AGENT}
            return decided

        commit = transact(self.store, task_id, decide, actor=actor[:64])
        if commit is not None:
            self._tell(commit, decided, actor)
            puts = (op.record for op in decided if isinstance(op, Put))
            for agent in (record for record in puts if isinstance(record, Agent)):
                if agent.agent_id in active and agent.status in TERMINAL_AGENT:
                    self._observer.ended(agent)
        return decided

    @staticmethod
    def _tell(commit: Commit, ops: Iterable[Op], actor: str) -> None:
        """Write what was committed to the log."""
        if log.isEnabledFor(logging.INFO):
            ids = {"changeset": str(commit.changeset_id), "task": commit.task_id, "actor": actor}
            for op in ops:
                log.info("%s", sentence(op), extra=ids)

    def with_retry(self, call: Callable[[], None]) -> None:
        """Call now, or in the background as soon as the store can be written to."""
        try:
            call()
        except RegistryError as error:
            if not error.retryable:
                raise
            threading.Thread(target=self.until_done, args=(call,), daemon=True).start()

    def until_done(self, call: Callable[[], None]) -> None:
        """Call until the store can be written to; an error that a retry cannot fix is logged."""
        while True:
            try:
                return call()
            except RegistryError as error:
                if not error.retryable:  # usually the store was closed: a scan corrects the record
                    log.info("not recorded, left to the next health scan: %s", error)
                    return None
            time.sleep(_PAUSE)
