"""Old names are accepted for one version, and say what they are called now."""

import subprocess
import sys
from importlib import import_module

import pytest

import registry_api
from backends.admin import cli
from registry_api import authoring, client, migration
from registry_api.renamed import new_options


@pytest.mark.parametrize(
    ("module", "old", "new"),
    [
        ("registry_api", "Movable", registry_api.MigrationSource),
        ("registry_api", "accepted", registry_api.validate_changeset),
        ("registry_api", "commit_surely", registry_api.commit_with_retry),
        ("registry_api.store", "Movable", registry_api.MigrationSource),
        ("registry_api.changeset", "accepted", registry_api.validate_changeset),
        ("registry_api.transact", "commit_surely", registry_api.commit_with_retry),
        ("registry_api.control", "FileControl", migration.PhaseFile),
    ],
)
def test_an_old_name_is_the_new_one_with_a_warning(module, old, new):
    with pytest.warns(DeprecationWarning, match=f"{old} is now .*{new.__name__}"):
        assert getattr(import_module(module), old) is new


@pytest.mark.parametrize(
    ("module", "name", "found"),
    [
        ("keyvalue", "Engine", authoring.Engine),
        ("models", "Agent", registry_api.Agent),
        ("store", "Replica", registry_api.capabilities.Replica),
        ("silence", "all_tasks", client.all_tasks),
        ("wrapper", "provides", registry_api.capabilities.provides),
        ("opening", "OpenContext", registry_api.OpenContext),
        ("state", "TaskState", registry_api.TaskState),
    ],
)
def test_an_old_module_is_found_with_a_warning(module, name, found):
    with pytest.warns(DeprecationWarning, match=f"registry_api.{module}.{name} is now "):
        assert getattr(import_module(f"registry_api.{module}"), name) is found


@pytest.mark.parametrize("module", ["registry_api", "registry_api.store", "registry_api.transact"])
def test_an_unknown_name_is_not_an_attribute(module):
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        import_module(module).nothing  # noqa: B018  (reading it is the test)


def test_a_function_stays_callable_though_a_module_has_its_old_name():
    """The import system binds an imported module over the function in the package."""
    program = (
        "from registry_api.transact import transact; from registry_api.follow import follow;"
        "from registry_api.models import *;"
        "import registry_api as r; from registry_api import transact as t;"
        "assert callable(t) and callable(r.follow) and r.models.Task is Task;"
        "from registry_api import Put, load_settings, new_changeset, open_store;"
        "store = open_store(load_settings(backend='memory'));"
        "from datetime import UTC, datetime;"
        "task = Task(task_id='t', description='d', created_at=datetime.now(UTC));"
        "store.commit(new_changeset('t', [Put(task)], expected=0, actor='test'));"
        "t(store, 't', lambda snapshot: [Put(task)]); print(store.head('t').revision)"
    )
    run = [sys.executable, "-W", "ignore", "-c", program]
    assert subprocess.run(run, capture_output=True, text=True, check=True).stdout == "2\n"


def test_only_options_of_switch_are_renamed():
    tokens = ["switch", "4", "--anyway", "--reason", "--anyway", "--", "--anyway"]
    assert new_options(tokens) == ["switch", "4", "--force", *tokens[3:]]


def test_an_old_option_is_the_new_one_with_a_warning(capsys, tmp_path):
    """Both ask for a reason, so nothing is switched here."""
    assert cli.main(["switch", "1", "--anyway", "--workspace", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert "warning: --anyway is now --force" in said
    assert "--reason" in said
