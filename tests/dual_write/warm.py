"""Imported once, in the process that actors are forked from: it uses every module that an actor
would otherwise load."""

import tempfile
from pathlib import Path

from contract_tests import build
from registry_api import load_settings, open_store
from tests.dual_write import actors

with tempfile.TemporaryDirectory() as folder:
    settings = load_settings(Path(folder), env={"REGISTRY_PHASE": "2"})
    for _ in range(2):
        store = open_store(settings, plugins=actors.plugins())
        if store.head(actors.TASK).revision == 0:
            build.make(store, actors.TASK, build.agent(actors.TASK), build.report(actors.TASK))
        store.load(actors.TASK)
        store.changes()
        store.close()
