"""The fixtures of the scenarios."""

from functools import partial

import pytest

from registry_api.migration import MigrationPhase
from tests import legacy
from tests.dual_write import actors
from tests.dual_write.actors import TASK, opened
from tests.dual_write.interleavings import Scenario


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    """Return a function that makes one workspace per phase, with one task, in that phase."""
    made = {}

    def make(phase):
        if phase not in made:
            made[phase] = folder = tmp_path_factory.mktemp(f"phase{phase}")
            agents = [{"id": "old", "type": "x", "status": "running", "progress": 1}]
            legacy.write_task(folder, TASK, agents=agents)
            log = actors.log_of(folder)
            log.write_text('{"timestamp": "2026-01-04T22:16:00", "agent_id": "old"}\n')
            migration = actors.migrating(folder)
            migration.switch(MigrationPhase(phase), actor="test")
            migration.close()
            store = opened(folder)
            store.load(TASK)
            store.close()
        return made[phase]

    return make


@pytest.fixture
def scenario(template, tmp_path):
    """Return a function that makes a scenario: the phase, and each program with its name."""
    return partial(Scenario, template, tmp_path)
