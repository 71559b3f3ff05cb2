"""Leases beside a registry of one host: killed holders, other boots, damaged files."""

import time
from contextlib import closing

import pytest

from contract_tests import build
from registry_api import Capability, load_settings, open_store
from registry_api.errors import Busy, CorruptDocument, NotSupported, StoreClosed
from registry_api.leases import FileLeases, files, leases_of
from registry_api.workspace import Flock
from tests import legacy, processes

NAME = "health"


def opened(workspace, **env):
    return open_store(load_settings(workspace, env=env))


def hold(workspace, told):
    """Renew the lease for ever, and note each token in the file ``told``."""
    with closing(opened(workspace)) as store, told.open("a", buffering=1) as file:
        while True:
            lease = leases_of(store).acquire_lease(NAME, "first", seconds=4.0)
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
        assert leases.acquire_lease(NAME, "second", seconds=60) is None
        holder.kill()
        holder.join()
        (token,) = set(told.read_text().split())  # one token, however often it was renewed
        processes.wait_until(lambda: leases.acquire_lease(NAME, "second", seconds=60))
        seen = leases.lease_holder(NAME)
        assert (seen.holder, seen.token) == ("second", int(token) + 1)


def test_no_lease_outlives_a_boot(tmp_path, monkeypatch):
    """After a restart of the machine every lease is free; its tokens rise on."""
    leases = FileLeases(tmp_path / "leases")
    before = leases.acquire_lease(NAME, "a", seconds=86_400)
    monkeypatch.setattr(files, "boot", lambda: "another boot")
    assert leases.lease_holder(NAME) is None
    after = leases.acquire_lease(NAME, "b", seconds=60)
    assert after.token == before.token + 1


def test_where_no_boot_is_known_the_clock_tells(tmp_path, monkeypatch):
    """Where the system does not name the boot, a clock that went back means another one."""
    leases = FileLeases(tmp_path / "leases")
    monkeypatch.setattr(files, "boot", lambda: "")
    before = leases.acquire_lease(NAME, "a", seconds=86_400)
    assert leases.lease_holder(NAME).token == before.token
    monkeypatch.setattr(files, "_now", lambda: 1.0)
    assert leases.lease_holder(NAME) is None
    assert leases.acquire_lease(NAME, "b", seconds=60).token == before.token + 1


def test_a_wait_for_another_call_is_busy(tmp_path, monkeypatch):
    """It names who holds the lock, as every wait does."""
    monkeypatch.setattr(files, "_TIMEOUT", 0.1)
    leases = FileLeases(tmp_path / "leases")
    leases.acquire_lease(NAME, "a", seconds=60)
    lock = Flock(tmp_path / "leases" / f"{NAME}.lock")
    lock.acquire(timeout=1)
    with pytest.raises(Busy):
        leases.acquire_lease(NAME, "b", seconds=60)
    lock.close()


@pytest.mark.parametrize("kind", ["sqlite", "memory"])
def test_a_closed_store_gives_no_lease(tmp_path, kind):
    """The leases of a store are used like the store: not after it was closed."""
    store = opened(tmp_path, REGISTRY_BACKEND=kind)
    build.make(store, "t")
    leases = leases_of(store)
    assert leases.acquire_lease(NAME, "a", seconds=60)
    store.close()
    with pytest.raises(StoreClosed):
        leases.acquire_lease(NAME, "a", seconds=60)


def test_a_damaged_file_is_named(tmp_path):
    """The error says what to do; after that the lease is free."""
    leases = FileLeases(tmp_path / "leases")
    leases.acquire_lease(NAME, "a", seconds=60)
    path = tmp_path / "leases" / f"{NAME}.json"
    path.write_bytes(b"{")
    with pytest.raises(CorruptDocument) as refused:
        leases.acquire_lease(NAME, "b", seconds=60)
    assert f"rm {path}" in refused.value.next_step
    path.unlink()
    assert leases.acquire_lease(NAME, "b", seconds=60)


def test_a_store_by_itself_has_none(tmp_path):
    """A store that is opened without its workspace says how to get leases."""
    with closing(open_store(load_settings(tmp_path, env={}), gated=False)) as store:
        build.make(store, "t")
        with pytest.raises(NotSupported, match="has no leases"):
            leases_of(store)


def test_looking_makes_nothing(tmp_path):
    """Asking who holds a lease creates no file."""
    assert FileLeases(tmp_path / "leases").lease_holder(NAME) is None
    assert list(tmp_path.iterdir()) == []
