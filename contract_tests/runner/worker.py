"""A worker process on the registry that the environment variables select."""

from __future__ import annotations

import os
import sys

from contract_tests import build
from contract_tests.faults.race_amplifier import amplified_races
from registry_api import Put, new_changeset, open_store, transact


def main(verb: str, task_id: str, argument: str) -> None:
    """Run ``bump TASK ROUNDS`` (count with transact) or ``report TASK NAME`` (until killed)."""
    from contract_tests.test_race import bump  # noqa: PLC0415  (needs pytest, which report does not)

    store = open_store(gated="REGISTRY_PHASE" in os.environ)  # as the harness opens it
    if verb == "bump":
        with amplified_races():
            for _ in range(int(argument)):
                transact(store, task_id, bump, attempts=1000)
        store.close()
        return
    for n in range(100_000):
        entry = build.report(task_id, progress=n % 100, message=argument)
        changeset = new_changeset(task_id, [Put(entry)], expected=None)
        store.commit(changeset)
        sys.stdout.write(changeset.id.hex + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
