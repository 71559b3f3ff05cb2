"""registry_api.settings: where settings come from, and which values are refused."""

import pytest

from registry_api import load_settings
from registry_api.errors import SettingsError
from registry_api.settings import _within_two
from registry_api.workspace.time_zone import machine_zone


def test_environment_over_file_over_default(tmp_path):
    """registry.toml gives defaults, the environment wins, arguments win over both."""
    (tmp_path / "registry.toml").write_text('backend = "memory"\nsilent_after = 60\n')
    assert load_settings(tmp_path, env={}).backend == "memory"
    settings = load_settings(tmp_path, env={"REGISTRY_BACKEND": "json"})
    assert (settings.backend, settings.silent_after) == ("json", 60.0)
    assert load_settings(tmp_path, env={"REGISTRY_BACKEND": "json"}, backend="x").backend == "x"


@pytest.mark.parametrize("name", ["REGISTRY_BACKND", "REGISTRY_BAKCEND", "REGISTRY_WORKSPACES"])
def test_a_misspelt_variable_is_named(tmp_path, name):
    """A name within two letters of a known variable is an error that suggests the known one."""
    with pytest.raises(SettingsError, match=r"unknown variable .* Did you mean REGISTRY_"):
        load_settings(tmp_path, env={name: "json"})


def test_unrelated_variables_are_left_alone(tmp_path):
    """A plugin may have REGISTRY_* variables of its own."""
    load_settings(tmp_path, env={"REGISTRY_LMDB_MAPSIZE": "1"})


@pytest.mark.parametrize(
    ("text", "match"),
    [("backend = [", "cannot be read"), ("bakend = 'x'", "unknown keys: bakend")],
)
def test_a_bad_file_is_refused(tmp_path, text, match):
    """A registry.toml that does not parse or has unknown keys is named."""
    (tmp_path / "registry.toml").write_text(text)
    with pytest.raises(SettingsError, match=match):
        load_settings(tmp_path, env={})


def test_bad_values_are_named(tmp_path):
    """The error names the variable and the reason."""
    with pytest.raises(SettingsError, match="REGISTRY_SILENT_AFTER"):
        load_settings(tmp_path, env={"REGISTRY_SILENT_AFTER": "soon"})


def test_the_workspace_is_found(tmp_path, monkeypatch):
    """Argument, REGISTRY_WORKSPACE, the legacy variable, then the nearest parent registry."""
    for name in "abc":
        (tmp_path / name).mkdir()
    env = {
        "REGISTRY_WORKSPACE": str(tmp_path / "a"),
        "CLAUDE_ORCHESTRATOR_WORKSPACE": str(tmp_path / "b"),
    }
    assert load_settings(tmp_path / "c", env=env).workspace == tmp_path / "c"
    assert load_settings(env=env).workspace == tmp_path / "a"
    del env["REGISTRY_WORKSPACE"]
    assert load_settings(env=env).workspace == tmp_path / "b"
    deep = tmp_path / "project" / "src" / "deep"
    deep.mkdir(parents=True)
    monkeypatch.chdir(deep)
    assert load_settings(env={}).workspace == deep
    (tmp_path / "project" / ".agent-workspace").mkdir()
    assert load_settings(env={}).workspace == tmp_path / "project" / ".agent-workspace"
    (tmp_path / "project" / "src" / ".registry").mkdir()
    assert load_settings(env={}).workspace == tmp_path / "project" / "src"
    with pytest.raises(SettingsError, match="not a directory"):
        load_settings(tmp_path / "nowhere", env={})


@pytest.mark.parametrize(
    ("a", "b", "near"),
    [("AB", "AB", True), ("ABCD", "AB", True), ("ABCDE", "AB", False), ("ABC", "CBA", True)],
)
def test_edit_distance(a, b, near):
    """Near means at most two edits apart."""
    assert _within_two(a, b) is near


def test_the_machines_zone_is_found_where_it_is_kept(tmp_path):
    """TZ first, then the link /etc/localtime, then /etc/timezone; an offset alone has no name."""
    link, name = tmp_path / "localtime", tmp_path / "timezone"
    name.write_text("Asia/Tokyo\n")
    assert machine_zone({"TZ": ":Europe/Berlin"}, link=link, name=name) == "Europe/Berlin"
    assert machine_zone({"TZ": ""}, link=link, name=name) == "UTC"
    assert machine_zone({"TZ": "XYZ-3"}, link=link, name=name) is None
    assert machine_zone({}, link=link, name=name) == "Asia/Tokyo"
    zones = tmp_path / "zoneinfo" / "Europe"
    zones.mkdir(parents=True)
    (zones / "Paris").touch()
    link.symlink_to(zones / "Paris")
    assert machine_zone({}, link=link, name=name) == "Europe/Paris"


@pytest.mark.parametrize(
    "named", ["${workspaceFolder}", "{workspaceFolder}", "$WORKSPACE_FOLDER", "${WORKSPACE_FOLDER}"]
)
def test_a_name_that_an_editor_did_not_expand(tmp_path, monkeypatch, named):
    """An editor's name of its folder is the current directory, whatever it is called; once, two
    registries came about, one of them in a folder of that literal name."""
    place = tmp_path / r"with\1" / ".agent-workspace"
    place.mkdir(parents=True)
    monkeypatch.chdir(place.parent)
    env = {"REGISTRY_WORKSPACE": f"{named}/.agent-workspace"}
    assert load_settings(env=env).workspace == place.resolve()
    assert not (place.parent / named).exists()


@pytest.mark.parametrize(
    "named", ["$WORKSPACE_FOLDER_2/x", "${WORKSPACE_FOLDER/x", "{workspaceFolders}/x"]
)
def test_another_name_is_not_expanded(tmp_path, monkeypatch, named):
    """Only the editor's own names are replaced."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / named).mkdir(parents=True)
    assert load_settings(env={"REGISTRY_WORKSPACE": named}).workspace == (tmp_path / named)
