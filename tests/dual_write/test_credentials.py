"""Credentials in the URL of a store open the store, and appear nowhere else."""

import json
import sys

import pytest

from backends.admin.cli import main
from registry_api import load_settings
from registry_api.errors import SettingsError
from registry_api.workspace import has_credentials, public, same_place, usable
from tests import legacy
from tests.registry_api.test_plugins import install

CANARY = "c4nary/pw@1"
ENCODED = "c4nary%2Fpw%401"
# A store that needs its password, and repeats its URL in its description and in errors.
VAULT = """
import os
from dataclasses import replace
from pathlib import Path
from urllib.parse import unquote
from registry_api import hookimpl

class VaultError(Exception):
    pass

class Vault:
    def __init__(self, inner, url):
        self.__dict__.update(inner=inner, url=url)
        self.info = replace(inner.info, name="vault", location=url)
    def __getattr__(self, name):
        found = getattr(self.inner, name)
        def call(*args, **named):
            if os.path.exists(self.url.rpartition("@")[2].partition("?")[0] + ".down"):
                raise VaultError(f"cannot reach vault://{self.url}")
            return found(*args, **named)
        return call

def opened(context):
    from backends.sql.plugin import _open_sqlite as _open
    user, at, path = context.location.rpartition("@")
    path = path.partition("?")[0]
    if unquote(user.partition(":")[2]) != "c4nary/pw@1":
        raise VaultError(f"wrong password in vault://{context.location}")
    return Vault(_open(replace(context, location=path)), context.location)

@hookimpl
def registry_register_stores(register):
    register("vault", opened)
"""


@pytest.fixture
def vault(tmp_path, monkeypatch, capsys):
    """Install the store's distribution; give a workspace, the store's file, and the command."""
    site = tmp_path / "site"
    site.mkdir()
    install(site, "vault-store", VAULT)
    monkeypatch.syspath_prepend(site)
    monkeypatch.setenv("REGISTRY_RETIRE_SECONDS", "0")
    workspace = tmp_path / "workspace"
    legacy.write_task(workspace, "TASK-1", agents=[{"id": "a", "type": "x", "status": "running"}])

    def command(*tokens, **env):
        with monkeypatch.context() as here:
            for name, value in env.items():
                here.setenv(name, value)
            code = main([*tokens, "--workspace", str(workspace)])
        found = capsys.readouterr()
        return code, found.out + found.err

    yield workspace, tmp_path / "vault.sqlite3", command
    sys.modules.pop("vault_store", None)


def leaks(text):
    return [secret for secret in (CANARY, ENCODED) if secret in text]


def test_the_password_is_nowhere(vault):
    """No command, in any phase there and back, with or without --json, even with the store down,
    prints the password or writes it to a file of the workspace."""
    workspace, path, command = vault
    env = {"REGISTRY_TARGET": f"vault://agents:{ENCODED}@{path}?password={ENCODED}"}
    looks = [
        ("status",),
        ("history",),
        ("verify",),
        ("doctor",),
        ("reconcile",),
        ("recover",),
        ("metrics",),
        ("plan", "next"),
        ("diff", "TASK-1"),
        ("watch", "--count", "1"),
    ]

    def check(*tokens, fine=(0, 3)):
        for more in ((), ("--json",)):
            code, text = command(*tokens, *more, **env)
            assert leaks(text) == [], (tokens, text)
            assert code in fine, (tokens, text)

    for phase in (1, 3, 4, 2):
        check("switch", str(phase))
        for tokens in looks:
            check(*tokens, fine=(0, 2, 3))
    path.with_name(path.name + ".down").write_text("")
    for tokens in (*looks, ("switch", "3")):
        check(*tokens, fine=range(1, 7) if tokens == ("switch", "3") else range(7))
    kept = [p for p in workspace.rglob("*") if p.is_file()]
    assert leaks("".join(p.read_bytes().decode("latin-1") for p in kept)) == []
    record = json.loads((workspace / ".registry" / "phase.json").read_text())
    assert record["target"] == f"vault://agents:***@{path}?password=***"


def test_the_environment_gives_them_and_without_it_the_answer_is_typed(vault):
    """Credentials from the environment open the store; without them a command exits 1 with a typed
    error and the next command, and the phase stays."""
    _, path, command = vault
    full = {"REGISTRY_TARGET": f"vault://agents:{ENCODED}@{path}"}
    assert command("switch", "3", **full)[0] == 0
    assert command("status", **full)[0] == 0
    code, text = command("status", "--json")
    assert code == 1
    error = json.loads(text)["error"]
    assert error["code"] == "settings"
    assert "needs credentials" in error["message"]
    assert "passfile" in error["next"]
    other = {"REGISTRY_TARGET": f"vault://agents:wrong@{path}"}
    code, text = command("status", "--json", **other)
    assert code == 1
    assert "cannot be opened" in text
    assert "wrong@" not in text


def test_a_passfile_gives_them(vault, tmp_path):
    """A passfile named in the URL gives the password, and the URL is recorded as it is; a passfile
    that others can read is refused."""
    workspace, path, command = vault
    secret = tmp_path / "secret"
    secret.write_text(f"{CANARY}\n")
    secret.chmod(0o600)
    env = {"REGISTRY_TARGET": f"vault://agents@{path}?passfile={secret}"}
    assert command("switch", "3", **env)[0] == 0
    code, text = command("status", "--json")  # the record is enough
    assert code == 0, text
    assert leaks(text) == []
    secret.chmod(0o644)
    code, text = command("status", "--json")
    assert (code, json.loads(text)["error"]["next"]) == (1, f"chmod 600 {secret}")
    secret.unlink()
    code, text = command("status", "--json")
    assert (code, json.loads(text)["error"]["code"]) == (1, "settings")
    kept = [p for p in workspace.rglob("*") if p.is_file()]
    assert leaks("".join(p.read_bytes().decode("latin-1") for p in kept)) == []


def test_registry_toml_with_credentials_is_for_its_owner_alone(tmp_path):
    file = tmp_path / "registry.toml"
    file.write_text('target = "redis://agents:secret@host/0"\n')
    file.chmod(0o644)
    with pytest.raises(SettingsError, match="mode 644") as caught:
        load_settings(tmp_path, env={})
    assert caught.value.next_step == f"chmod 600 {file}"
    file.chmod(0o600)
    settings = load_settings(tmp_path, env={})
    assert settings.target.endswith("secret@host/0")
    assert "secret" not in repr(settings)
    assert "secret" not in str(settings)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("sqlite", "sqlite"),
        ("redis://host:6379/0", "redis://host:6379/0"),
        ("redis://:pw@host/0", "redis://:***@host/0"),
        ("redis://u:pw@host:1/0", "redis://u:***@host:1/0"),
        ("u:p@w@host/0", "u:***@host/0"),
        ("redis://u:p/w@host/0", "redis://u:***@host/0"),
        ("redis://u:p?w@host/0", "redis://u:***@host/0"),
        ("redis://u:p#w@host/0", "redis://u:***@host/0"),
        ("redis://u:1234/w@host", "redis://u:***@host"),
        ("u:p/w@host:6379/0", "u:***@host:6379/0"),
        ("x://h?sslpassword=a&access_token=b", "x://h?sslpassword=***&access_token=***"),
        ("redis://u@host/0", "redis://u@host/0"),
        ("postgresql://h/d?user=u&password=pw&x=1", "postgresql://h/d?user=u&password=***&x=1"),
        ("x://h?api_key=k;TOKEN=t", "x://h?api_key=***;TOKEN=***"),
        ("lmdb:///a/b:c@d", "lmdb:///a/b:c@d"),
    ],
)
def test_the_shown_form_of_a_url(url, shown):
    assert public(url) == shown
    assert public(shown) == shown
    assert has_credentials(url) == (url != shown)
    assert same_place(url, shown)
    assert usable(shown, [url]) == url


def test_places_that_differ():
    assert not same_place("redis://u:a@host/0", "redis://u:a@host/1")
    assert not same_place("redis://u:a@host/0", "redis://v:a@host/0")
    assert same_place("redis://u:a@host/0", "redis://u@host/0?passfile=/x")
    assert same_place("redis://u:a@host/0?x=1", "redis://u@host/0?x=1&password=y")
