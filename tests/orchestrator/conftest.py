"""A service over a store, whose agents the test drives itself."""

from contextlib import closing

import pytest

from orchestrator.service import Orchestrator
from orchestrator.settings import OrchestratorSettings
from registry_api import load_settings, open_store
from tests.orchestrator.playing import Play, launchers


@pytest.fixture
def opened(tmp_path):
    """Return a function that makes a Play with a backend and settings of the orchestrator."""
    stores = []

    def make(backend="memory", *, launcher="process", now=None, observer=None, **options):
        settings = load_settings(tmp_path, env={}, backend=backend)
        store = open_store(settings)
        stores.append(store)
        values = {"default_kind": "external", "reviewers": 2, "stop_grace": 1.0, **options}
        chosen = OrchestratorSettings.model_validate(values)
        more = {"now": now} if now else {}
        if observer is not None:
            more["observer"] = observer(store, settings)
        made = launchers(launcher)
        return Play(Orchestrator(store, made, settings=settings, options=chosen, **more))

    yield make
    for store in stores:
        with closing(store):
            pass


@pytest.fixture
def play(opened):
    """A Play in memory."""
    return opened()
