"""PostgreSQL servers of the tests' own, which can be killed, paused and replicated.

`Postgres` is any server at a URL; `PostgresServer` is one that the test process starts and owns.
Linux only: see watcher.py, which lets no server outlive the test process.
"""

import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, Self
from urllib.parse import quote, urlsplit

import psycopg

from tests.postgresql import ports, programs, watcher
from tests.postgresql.programs import binaries

__all__ = ["Postgres", "PostgresServer", "binaries", "standby"]

SETTINGS = {
    "fsync": "off",
    "shared_buffers": "32MB",
    "max_connections": "60",
    "listen_addresses": "127.0.0.1",
    "dynamic_shared_memory_type": "mmap",  # files below the data: none stay in /dev/shm
}
STOP_SIGNALS = {"smart": signal.SIGTERM, "fast": signal.SIGINT, "immediate": signal.SIGQUIT}
PATIENCE = 60  # seconds until a start, a stop or a promotion counts as failed


class Postgres:
    """A running server. `url` is that of a role that may create databases."""

    def __init__(self, url: str) -> None:
        self._url = url

    def url(self, database: str) -> str:
        """Return the URL of a database of this server."""
        return urlsplit(self._url)._replace(path="/" + quote(database, safe="")).geturl()

    def run(self, sql: str, database: str = "postgres") -> list[tuple[Any, ...]]:
        """Run one statement outside a transaction, and return its rows, if it has any."""
        with psycopg.connect(self.url(database), autocommit=True, connect_timeout=10) as connection:
            cursor = connection.execute(sql.encode())
            return cursor.fetchall() if cursor.description else []

    def create_database(self, name: str) -> None:
        """Create an empty database."""
        self.run(f"CREATE DATABASE {_quoted(name)}")

    def drop_database(self, name: str) -> None:
        """Remove a database, if it is there, and end the connections to it."""
        self.run(f"DROP DATABASE IF EXISTS {_quoted(name)} WITH (FORCE)")


class PostgresServer(Postgres):
    """A server of this process, which ends with this process, however this process ends.

    It listens on one port, the same after each start, of 127.0.0.1 unless ``settings`` say
    otherwise, and asks for a password (SCRAM).
    As a context manager it starts, and is closed at the end.

    The log is `folder`/server.log and the data are below `folder`. But if root runs this and the
    server's user may not enter `folder` (pytest's are private), the data are below /tmp.
    `settings` come on top of `SETTINGS`: tests of durability set `fsync` to "on".
    With a `primary` it becomes a copy of that server, when it starts: see `standby`.
    """

    def __init__(
        self,
        folder: Path,
        *,
        settings: Mapping[str, str] = MappingProxyType({}),
        installation: Path | None = None,
        primary: "PostgresServer | None" = None,
    ) -> None:
        self.installation = installation or programs.require_binaries()
        self.settings = SETTINGS | dict(settings)
        self.log = folder / "server.log"
        self.password: str = primary.password if primary else secrets.token_hex(16)
        self._reservation, self.port = ports.reserve()
        self._primary = primary
        self._standbys: list[str] = []
        self._home = programs.make_home(folder)
        self._data = self._home / "data"
        self._watcher: subprocess.Popen[bytes] | None = None
        super().__init__(f"postgresql://registry:{self.password}@127.0.0.1:{self.port}/postgres")

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self) -> None:
        """Start, and return when the server takes connections; RuntimeError with its log if not."""
        if self._watcher is not None:
            raise RuntimeError("the server is running; or it ended by itself: call kill() first")
        if not self._data.exists():
            self._fill()
        options = [f"--{name}={value}" for name, value in self.settings.items()]
        # No socket file: its path may have 107 bytes at most.
        options += ["--unix-socket-directories="]
        self._watcher = self._start_program("postgres", *options, f"--port={self.port}")
        self._await("take connections", self._takes_connections)

    def stop(self, mode: Literal["smart", "fast", "immediate"] = "fast") -> None:
        """Shut down: "fast" ends all connections, "smart" awaits their end, "immediate" crashes."""
        if self._watcher is not None:
            self.resume()
            for postmaster in list(watcher.descendants(self._watcher.pid))[:1]:
                os.kill(postmaster, STOP_SIGNALS[mode])
            self._watcher.wait(PATIENCE)
            self._watcher = None

    def kill(self) -> None:
        """Kill all processes of the server (SIGKILL), and return when there is none."""
        if self._watcher is not None:
            self._watcher.terminate()
            self._watcher.wait(PATIENCE)
            self._watcher = None

    def close(self) -> None:
        """Kill the server and remove its data; the log stays. It cannot start again."""
        self.kill()
        shutil.rmtree(self._home, ignore_errors=True)
        self._reservation.close()

    def pause(self) -> None:
        """Stop all processes (SIGSTOP): clients can connect, but get no answer."""
        stopped = {"T", "t"}  # the second is that of a traced process
        self._await("pause", lambda: set(self._signal(signal.SIGSTOP).values()) <= stopped)

    def resume(self) -> None:
        """Let all processes go on."""
        self._signal(signal.SIGCONT)

    def allow(self, addresses: str) -> None:
        """Let clients connect from a network, with the password."""
        with (self._data / "pg_hba.conf").open("a") as file:
            file.write(f"host all all {addresses} scram-sha-256\n")
        self.run("SELECT pg_reload_conf()")

    def promote(self) -> None:
        """Let a standby become a primary; return when it takes writes."""
        self._await("become a primary", lambda: self.run("SELECT pg_promote()") == [(True,)])

    def wait_for_standby(self, name: str) -> None:
        """Let each commit from now on wait for this standby as well; return when it keeps up."""
        self._standbys.append(name)
        names = f"FIRST {len(self._standbys)} ({', '.join(self._standbys)})"
        self.run(f"ALTER SYSTEM SET synchronous_standby_names = '{names}'")
        self.run("SELECT pg_reload_conf()")
        state = f"SELECT sync_state FROM pg_stat_replication WHERE application_name = '{name}'"
        self._await(f"see {name}", lambda: self.run(state) == [("sync",)])

    def _fill(self) -> None:
        """Make the data folder, a new one or a copy of the primary's."""
        if self._primary:
            source = f"{self._primary.url('postgres')}?application_name=standby_{self.port}"
            self._run_program("pg_basebackup", "-R", "--checkpoint=fast", f"--dbname={source}")
            with (self._data / "postgresql.auto.conf").open("a") as settings:
                settings.write("synchronous_standby_names = ''\n")  # those are the primary's
            return
        password = self._home / "password"
        password.touch(0o600)
        password.write_text(self.password)
        programs.give(password)
        options = ["--username=registry", f"--pwfile={password}", "--auth=scram-sha-256"]
        self._run_program("initdb", *options, "--encoding=UTF8", "--locale=C")
        password.unlink()

    def _run_program(self, name: str, *options: str) -> None:
        self._watcher = self._start_program(name, "--no-sync", *options)
        code = self._watcher.wait(PATIENCE)
        self._watcher = None
        if code:
            raise RuntimeError(f"{name} failed:\n{self._end_of_log()}")

    def _start_program(self, name: str, *options: str) -> subprocess.Popen[bytes]:
        """Start one of PostgreSQL's programs on the data; return the process of its watcher."""
        # Without what would change libpq. LD_PRELOAD stays: tests slow a disk by it.
        environment = {k: v for k, v in os.environ.items() if not k.startswith("PG")}
        user = programs.server_user()
        command = [sys.executable, "-I", "-S", watcher.__file__, os.getpid(), self._home]
        command += [user.pw_uid, user.pw_gid] if user else ["", ""]
        command += [self.installation / name, "-D", self._data, *options]
        with self.log.open("ab") as log:
            return subprocess.Popen(
                [str(word) for word in command],
                cwd="/",
                env=environment | {"HOME": str(self._home), "LC_ALL": "C", "TZ": "UTC"},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C is for the tests, which then close the server
            )

    def _signal(self, number: signal.Signals) -> dict[int, str]:
        """Send a signal to all processes of the server; return the states that they had."""
        processes = watcher.descendants(self._watcher.pid) if self._watcher else {}
        for pid in processes:
            with suppress(ProcessLookupError):
                os.kill(pid, number)
        return processes

    def _takes_connections(self) -> bool:
        with suppress(psycopg.OperationalError):
            return bool(self.run("SELECT 1"))
        return False

    def _await(self, what: str, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PATIENCE
        while not condition():
            ended = self._watcher is None or self._watcher.poll() is not None
            if ended or time.monotonic() > deadline:
                raise RuntimeError(f"the server did not {what}:\n{self._end_of_log()}")
            time.sleep(0.01)

    def _end_of_log(self) -> str:
        return self.log.read_text(errors="replace")[-2000:]


def standby(primary: PostgresServer, folder: Path) -> PostgresServer:
    """Start a copy of `primary` that follows it; each commit there waits for the copy's disk.

    While the copy is down or paused, commits on `primary` wait. `promote` makes it a primary.
    """
    server = PostgresServer(
        folder, settings=primary.settings, installation=primary.installation, primary=primary
    )
    try:
        server.start()
        primary.wait_for_standby(f"standby_{server.port}")
    except BaseException:
        server.close()
        raise
    return server


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
