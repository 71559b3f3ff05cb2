"""registry_api.plugins: stores found by entry point; a broken plugin breaks nothing else."""

import subprocess
import sys
import textwrap
from contextlib import closing

import pytest

from registry_api import load_plugins, load_settings, open_migration, open_store
from registry_api.errors import ContractTooNew, PreflightFailed, SettingsError, UnknownBackend
from registry_api.migration import MigrationPhase
from tests import legacy

PLUGIN = """
from registry_api import hookimpl
from registry_api.opening import open_store

@hookimpl
def registry_register_stores(register):
    from backends.memory import MemoryStore
    register("{scheme}", lambda context: MemoryStore(now=context.now))

{more}
"""


def install(site, name, code, entry="registry_backend"):
    """Write a distribution into a folder of sys.path, as pip does."""
    module = name.replace("-", "_")
    (site / f"{module}.py").write_text(textwrap.dedent(code))
    info = site / f"{module}-1.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.2\n")
    (info / "entry_points.txt").write_text(f"[{entry}]\n{module} = {module}\n")


@pytest.fixture
def site(tmp_path, monkeypatch):
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)
    before = set(sys.modules)
    yield folder
    for name in set(sys.modules) - before:
        del sys.modules[name]


def test_a_store_of_another_distribution_is_found(site, tmp_path):
    """Installing it and naming it in REGISTRY_BACKEND is enough, in another process too."""
    install(site, "their-store", PLUGIN.format(scheme="theirs", more=""))
    code = (
        "from registry_api import open_store; s = open_store(); print(s.info.name); "
        "print(s.counts().total_tasks)"
    )
    env = {
        "PYTHONPATH": str(site),
        "REGISTRY_BACKEND": "theirs",
        "REGISTRY_WORKSPACE": str(tmp_path),
    }
    out = subprocess.run(
        [sys.executable, "-c", code], env=env, check=True, capture_output=True, text=True
    )
    assert out.stdout.split() == ["memory", "0"]


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("import nowhere_to_be_found", "nowhere_to_be_found"),
        ("raise SystemError('boom')", "boom"),
        ("import sys; sys.exit(3)", "SystemExit"),
        (PLUGIN.format(scheme="x", more="@hookimpl\ndef registry_no_such_hook(): ..."), "no_such"),
    ],
)
def test_a_broken_plugin_is_reported_and_passed_over(site, code, reason):
    """The others load; the broken one is named with its distribution and the reason."""
    install(site, "broken-plugin", code)
    plugins = load_plugins()
    broken = next(p for p in plugins.loaded if p.name == "broken_plugin")
    assert (broken.distribution, broken.version) == ("broken-plugin", "1.2")
    assert reason in broken.broken
    assert "memory" in plugins.stores
    with pytest.raises(UnknownBackend, match="broken_plugin"):
        plugins.factory("x")


def test_one_scheme_twice_names_both(site):
    """Two plugins with the same scheme: an error that names both distributions."""
    install(site, "zz-imitator", PLUGIN.format(scheme="memory", more=""))
    with pytest.raises(SettingsError, match=r"registry-backend.*zz-imitator"):
        load_plugins()


def test_watchers_see_commits_and_cannot_break_them(site, tmp_path, caplog):
    """registry_committed and registry_observe run after the operation; their errors are logged."""
    more = textwrap.dedent(
        """
        seen = []

        @hookimpl
        def registry_committed(commit):
            seen.append(commit.revision)
            raise RuntimeError("watcher")

        @hookimpl
        def registry_observe(op, outcome):
            seen.append((op, outcome))
        """
    )
    install(site, "watcher", PLUGIN.format(scheme="watched", more=more))
    from contract_tests import build
    from registry_api.errors import Conflict

    store = open_store(load_settings(tmp_path, env={}, backend="watched"))
    build.make(store, "t")
    with pytest.raises(Conflict):
        build.make(store, "t")
    import watcher

    assert watcher.seen == [("commit", "ok"), 1, ("commit", "conflict")]
    assert "watcher failed while observing" in caplog.text


@pytest.mark.parametrize(("version", "taken"), [("1.9", True), ("2.0", False), ("10.1", False)])
def test_a_store_of_a_newer_contract_is_refused(site, tmp_path, version, taken):
    """A newer minor version only adds capabilities; a newer major version may change anything."""
    more = f"""
def newer(context):
    from dataclasses import replace
    from backends.memory import MemoryStore
    store = MemoryStore(now=context.now)
    store.info = replace(store.info, name="newer", contract_version={version!r})
    return store

@hookimpl(specname="registry_register_health_checks")
def later(register):
    pass
"""
    code = PLUGIN.replace("lambda context: MemoryStore(now=context.now)", "newer")
    install(site, "newer-store", code.format(scheme="newer", more=more))
    settings = load_settings(tmp_path, env={"REGISTRY_BACKEND": "newer"})
    if taken:
        open_store(settings).close()
    else:
        with pytest.raises(ContractTooNew, match=version) as refused:
            open_store(settings)
        assert "Upgrade" in refused.value.next_step


def test_what_is_not_declared_is_not_used(site, tmp_path):
    """A store that has every method of a target but does not declare the capability is refused as a
    target, and the workspace stays in its phase."""
    more = """
def plain(context):
    from backends.admin.template.registry_backend_example import ExampleEngine
    from registry_api.authoring import KeyValueStore
    return KeyValueStore(ExampleEngine(), name="plain", now=context.now)
"""
    code = PLUGIN.replace("lambda context: MemoryStore(now=context.now)", "lambda c: plain(c)")
    install(site, "plain-store", code.format(scheme="plain", more=more))
    legacy.write_task(tmp_path, "TASK-1")
    settings = load_settings(tmp_path, env={"REGISTRY_TARGET": "plain"})
    with closing(open_migration(settings)) as migration:
        with pytest.raises(PreflightFailed, match="cannot be the target") as refused:
            migration.switch(MigrationPhase(1), actor="test")
        assert "declares" in refused.value.next_step
        assert migration.status().record.phase == 0
