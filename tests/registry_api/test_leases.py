"""Leases beside a registry of one host: killed holders, other boots, damaged files."""

import time
from contextlib import closing

import pytest

from contract_tests import build
from registry_api import Capability, load_settings, open_store
from registry_api.errors import CorruptDocument, NotSupported
from registry_api.leases import FileLeases, files, leases_of
from tests import legacy, processes

NAME = "health"


def opened(workspace, **env):
    return open_store(load_settings(workspace, env=env))


def hold(workspace, told):
    """Renew the lease for ever, and note each token in the file ``told``."""
    with closing(opened(workspace)) as store, told.open("a", buffering=1) as file:
        while True:
            lease = leases_of(store).acquire(NAME, "first", seconds=1.0)
            print(lease and lease.token, file=file)
            time.sleep(0.1)


@pytest.mark.parametrize("kind", ["json", "sqlite"])
def test_another_process_takes_over_from_a_killed_one(tmp_path, kind):
    """While the holder renews its lease nobody else gets it; when it is killed, another process
    gets it with a higher token as soon as the lease has expired."""
    if kind == "json":
        legacy.write_task(tmp_path, "TASK-1")
    told = tmp_path / "told"
    holder = processes.start(hold, tmp_path, told)
    processes.wait_until(lambda: told.exists() and len(told.read_text().splitlines()) > 15)
    with closing(opened(tmp_path)) as store:
        assert Capability.LEASES in store.info.capabilities
        leases = leases_of(store)
        assert leases.acquire(NAME, "second", seconds=60) is None
        holder.kill()
        holder.join()
        (token,) = set(told.read_text().split())  # one token, however often it was renewed
        processes.wait_until(lambda: leases.acquire(NAME, "second", seconds=60))
        seen = leases.holder(NAME)
        assert (seen.holder, seen.token) == ("second", int(token) + 1)


def test_no_lease_outlives_a_boot(tmp_path, monkeypatch):
    """After a restart of the machine every lease is free; its tokens rise on."""
    leases = FileLeases(tmp_path / "leases")
    before = leases.acquire(NAME, "a", seconds=86_400)
    monkeypatch.setattr(files, "boot", lambda: "another boot")
    assert leases.holder(NAME) is None
    after = leases.acquire(NAME, "b", seconds=60)
    assert after.token == before.token + 1


def test_a_damaged_file_is_named(tmp_path):
    """The error says what to do; after that the lease is free."""
    leases = FileLeases(tmp_path / "leases")
    leases.acquire(NAME, "a", seconds=60)
    path = tmp_path / "leases" / f"{NAME}.json"
    path.write_bytes(b"{")
    with pytest.raises(CorruptDocument) as refused:
        leases.acquire(NAME, "b", seconds=60)
    assert refused.value.next_step == f"rm {path}"
    path.unlink()
    assert leases.acquire(NAME, "b", seconds=60)


def test_a_store_by_itself_has_none(tmp_path):
    """A store that is opened without its workspace says how to get leases."""
    with closing(open_store(load_settings(tmp_path, env={}), gated=False)) as store:
        build.make(store, "t")
        with pytest.raises(NotSupported, match="has no leases"):
            leases_of(store)


def test_looking_makes_nothing(tmp_path):
    """Asking who holds a lease creates no file."""
    assert FileLeases(tmp_path / "leases").holder(NAME) is None
    assert list(tmp_path.iterdir()) == []
