import os
import sqlite3

import pytest

from backends.sql.sqlite import engine
from backends.sql.sqlite.write_ahead_log import has_frames
from contract_tests import build
from registry_api import load_settings, open_store


@pytest.fixture
def database(tmp_path):
    connection = sqlite3.connect(tmp_path / "db", isolation_level=None)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA wal_autocheckpoint=0")
    connection.execute("CREATE TABLE t (text)")
    yield connection
    connection.close()


def test_the_length_of_the_log_is_that_since_it_began_again(database, tmp_path):
    """SQLite says the same, though the file keeps its size when the log begins again."""
    fd = os.open(tmp_path / "db-wal", os.O_RDONLY)
    for n in range(40):
        database.execute("INSERT INTO t VALUES (?)", ("x" * 9000,))
        if n % 10 == 9:
            length = database.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()[1]
            assert has_frames(fd, length)
            assert not has_frames(fd, length + 1)
    size = os.fstat(fd).st_size
    database.execute("INSERT INTO t VALUES ('y')")
    assert os.fstat(fd).st_size == size
    length = database.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()[1]
    assert 0 < length < 10
    assert has_frames(fd, length)
    assert not has_frames(fd, length + 1)
    os.close(fd)


def test_a_log_without_a_header_has_no_frames(tmp_path):
    (path := tmp_path / "wal").write_bytes(b"\x37\x7f\x06\x82")
    fd = os.open(path, os.O_RDONLY)
    assert not has_frames(fd, 1)
    os.close(fd)


def test_many_commits_do_not_let_the_log_grow(tmp_path):
    """The store copies the log before it is much longer than its limit, and it begins again."""
    settings = load_settings(tmp_path, env={"REGISTRY_DURABLE": "0"})
    store = open_store(settings)
    build.make(store, "t", build.agent("t"))
    for _ in range(1200):
        build.put(store, build.report("t", message="x" * 3000), expected=None)
    size = (tmp_path / ".registry" / "registry.sqlite3-wal").stat().st_size
    assert size < 1.5 * 4120 * engine._CHECKPOINT_FRAMES
    store.close()
