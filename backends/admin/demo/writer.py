"""An agent process of the demo: writes reports, findings and new agents through open_store."""

from __future__ import annotations

import random
import select
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

from uuid_utils.compat import uuid7

from registry_api import (
    Agent,
    Finding,
    Op,
    ProgressEntry,
    Put,
    RegistryStore,
    TaskSnapshot,
    all_tasks,
    commit_with_retry,
    load_settings,
    new_changeset,
    open_store,
    transact,
)
from registry_api.records import ALL

# The most writes a second, and the pause after a write as a multiple of its duration. Without the
# pause a slow host has more to copy with every step.
_RATE = 50
_PAUSE = 2
_SABOTAGE = 500  # with --sabotage one write in 500 is acknowledged but not made


def main(workspace: str, acks: str, name: str, sabotage: str, rate: str = str(_RATE)) -> None:
    """Write until standard input ends; acknowledge each write in ``acks``: kind, task, id, when."""
    store = open_store(load_settings(workspace))
    tasks = [t.task_id for t in all_tasks(store, ALL)]
    rng = random.Random(name)
    took = 0.0
    with Path(acks).open("w", buffering=1) as out:
        for n in range(10**9):
            if _stopped(max(1 / float(rate) - took, _PAUSE * took)):
                break
            start = time.monotonic()
            task_id = rng.choice(tasks)
            drop = sabotage == "yes" and n % _SABOTAGE == _SABOTAGE // 2
            kind, key = _write(store, task_id, name, n, drop=drop)
            out.write(f"{kind} {task_id} {key} {time.monotonic()}\n")
            took = time.monotonic() - start
    store.close()


def _stopped(seconds: float) -> bool:
    """Wait until the next write is due; return whether to stop instead (standard input ended)."""
    return bool(select.select([sys.stdin], [], [], seconds)[0])


def _write(store: RegistryStore, task_id: str, name: str, n: int, *, drop: bool) -> tuple[str, str]:
    now = datetime.now(UTC)
    key = uuid7().hex
    if n % 50 == 49:
        agent = Agent(task_id=task_id, agent_id=f"{name}-{n}", type="demo", started_at=now)

        def spawn(_: TaskSnapshot) -> list[Op]:
            return [Put(agent)]

        if not drop:
            transact(store, task_id, spawn, actor=name, attempts=1000)
        return "agent", agent.agent_id
    if n % 5 == 4:
        record: Finding | ProgressEntry = Finding(
            task_id=task_id, finding_id=key, agent_id=name, timestamp=now, message=f"finding {n}"
        )
    else:
        record = ProgressEntry(
            task_id=task_id, entry_id=key, agent_id=name, timestamp=now, progress=n % 100
        )
    if not drop:
        changeset = new_changeset(task_id, [Put(record)], expected=None, actor=name)
        commit_with_retry(store, changeset, deadline=time.monotonic() + 30)
    return "line", key


if __name__ == "__main__":
    main(*sys.argv[1:])
