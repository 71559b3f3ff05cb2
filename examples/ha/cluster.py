"""Three PostgreSQL servers on this machine that Patroni and etcd keep available, to try a failover.

    python examples/ha/cluster.py start /tmp/ha
    export REGISTRY_BACKEND="$(python examples/ha/cluster.py url /tmp/ha)"
    python examples/ha/cluster.py kill-leader /tmp/ha
    python examples/ha/cluster.py status /tmp/ha
    python examples/ha/cluster.py stop /tmp/ha

Debian's packages are needed (etcd-server, patroni, postgresql), and an ordinary user: PostgreSQL
does not run as root. In production each server and each member of etcd has a host of its own; the
configuration of Patroni is the same there, but for the addresses. What matters for the registry is
`synchronous_mode_strict`: a commit is acknowledged only when a standby has it too, also when there
is only one server left, which then waits.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import suppress
from pathlib import Path
from typing import Any

import psycopg

NODES = ("node1", "node2", "node3")
PATIENCE = 120.0  # seconds that a start or a failover may take


def main() -> int:
    """Run one command; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    commands = {
        "start": start,
        "url": show_url,
        "status": status,
        "kill-leader": kill_leader,
        "restart": restart,
        "stop": stop,
    }
    parser.add_argument("command", choices=commands)
    parser.add_argument("folder", type=Path, help="holds the data, the logs and the password")
    given = parser.parse_args()
    if os.geteuid() == 0:
        sys.exit("PostgreSQL does not run as root: run this as an ordinary user")
    missing = [name for name in ("etcd", "patroni") if shutil.which(name) is None]
    if missing or not bin_dirs():
        sys.exit("missing: apt install etcd-server patroni postgresql")
    return commands[given.command](given.folder.absolute())


# -- commands ------------------------------------------------------------------------------------


def start(folder: Path) -> int:
    """Start everything, create the database, and say how to reach it."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not (folder / "cluster.json").exists():
        ports = free_ports(4 * len(NODES))
        secret = {name: secrets.token_hex(16) for name in ("postgres", "replicator", "registry")}
        nodes = dict(zip(NODES, zip(*[iter(ports)] * 4, strict=True), strict=True))
        write(folder / "cluster.json", json.dumps({"nodes": nodes, "passwords": secret}))
        write(folder / "password", secret["registry"])
        for name in NODES:
            # Patroni takes JSON as well: it is a part of YAML.
            write(folder / f"{name}.yml", json.dumps(patroni(folder, name), indent=2))
    for name in NODES:
        run(folder, f"{name}.etcd", etcd(folder, name))
    for name in NODES:
        run(folder, f"{name}.patroni", ["patroni", str(folder / f"{name}.yml")])
    leader = wait_for_leader(folder, at_least=len(NODES))
    create_database(folder, leader)
    sys.stdout.write(f"{leader} is the leader; REGISTRY_BACKEND='{url_of(folder)}'\n")
    return 0


def show_url(folder: Path) -> int:
    """Print the URL with all servers: a client uses the one that takes writes."""
    sys.stdout.write(url_of(folder) + "\n")
    return 0


def status(folder: Path) -> int:
    """Print each server's role and state."""
    told = members(folder)
    for name in NODES:
        sys.stdout.write(f"{name}: {told.get(name, 'does not answer')}\n")
    return 0


def kill_leader(folder: Path) -> int:
    """Kill the leader's Patroni and PostgreSQL with SIGKILL, and wait for the next leader."""
    old = wait_for_leader(folder)
    begun = time.monotonic()
    for pid in (pid_of(folder, f"{old}.patroni"), postmaster(folder, old)):
        if pid:
            os.kill(pid, signal.SIGKILL)
    new = wait_for_leader(folder, other_than=old)
    sys.stdout.write(f"{old} was killed; {new} leads after {time.monotonic() - begun:.1f} s\n")
    return 0


def restart(folder: Path) -> int:
    """Start again what was killed: it joins as a standby."""
    for name in NODES:
        run(folder, f"{name}.patroni", ["patroni", str(folder / f"{name}.yml")])
    wait_for_leader(folder, at_least=len(NODES))
    return status(folder)


def stop(folder: Path) -> int:
    """End every process; the data stay."""
    for part in ("patroni", "etcd"):
        pids = [pid_of(folder, f"{name}.{part}") for name in NODES]
        for pid in filter(None, pids):
            os.kill(pid, signal.SIGTERM)
        wait_until(lambda pids=pids: not any(map(alive, filter(None, pids))), "everything to end")
    return 0


# -- configuration -------------------------------------------------------------------------------


def etcd(folder: Path, name: str) -> list[str]:
    """Return the command of one member of etcd."""
    nodes = known(folder)["nodes"]
    client, peer = (f"http://127.0.0.1:{port}" for port in nodes[name][2:])
    everyone = ",".join(f"{n}=http://127.0.0.1:{ports[3]}" for n, ports in nodes.items())
    options = {
        "name": name,
        "data-dir": folder / f"{name}.etcd",
        "listen-client-urls": client,
        "advertise-client-urls": client,
        "listen-peer-urls": peer,
        "initial-advertise-peer-urls": peer,
        "initial-cluster": everyone,
        "log-level": "warn",
    }
    return ["etcd", *(f"--{key}={value}" for key, value in options.items())]


def patroni(folder: Path, name: str) -> dict[str, Any]:
    """Return the configuration of one server's Patroni."""
    found = known(folder)
    postgres, rest, *_ = found["nodes"][name]
    passwords = found["passwords"]
    return {
        "scope": "registry",
        "name": name,
        "restapi": {"listen": f"127.0.0.1:{rest}", "connect_address": f"127.0.0.1:{rest}"},
        "etcd3": {"hosts": [f"127.0.0.1:{ports[2]}" for ports in found["nodes"].values()]},
        "bootstrap": {
            "dcs": {
                "ttl": 20,  # seconds after which a leader that is not heard is replaced
                "loop_wait": 5,
                "retry_timeout": 5,
                "synchronous_mode": True,
                # Without it the last server acknowledges alone, and a failover loses that.
                "synchronous_mode_strict": True,
                "postgresql": {"use_pg_rewind": True, "parameters": {"wal_log_hints": "on"}},
            },
            "initdb": [{"encoding": "UTF8"}, {"auth": "scram-sha-256"}, "data-checksums"],
        },
        "postgresql": {
            "listen": f"127.0.0.1:{postgres}",
            "connect_address": f"127.0.0.1:{postgres}",
            "data_dir": str(folder / f"{name}.data"),
            "bin_dir": str(bin_dirs()[-1]),
            "pgpass": str(folder / f"{name}.pgpass"),
            "authentication": {
                user: {"username": login, "password": passwords[login]}
                for user, login in (("superuser", "postgres"), ("replication", "replicator"))
            },
            "parameters": {"unix_socket_directories": ""},
            "pg_hba": [
                "host replication replicator 127.0.0.1/32 scram-sha-256",
                "host all all 127.0.0.1/32 scram-sha-256",
            ],
        },
    }


def bin_dirs() -> list[Path]:
    """Return where Debian keeps PostgreSQL's programs, the newest version last."""
    found = Path("/usr/lib/postgresql").glob("*/bin")
    return sorted(found, key=lambda path: int(path.parent.name))


def url_of(folder: Path) -> str:
    """Return the URL of the registry's database."""
    hosts = ",".join(f"127.0.0.1:{ports[0]}" for ports in known(folder)["nodes"].values())
    return f"postgresql://registry@{hosts}/registry?passfile={folder / 'password'}"


def create_database(folder: Path, leader: str) -> None:
    """Create the registry's role and database unless they are there."""
    found = known(folder)
    port, password = found["nodes"][leader][0], found["passwords"]
    server = f"host=127.0.0.1 port={port} user=postgres password={password['postgres']}"
    with psycopg.connect(server, dbname="postgres", autocommit=True) as connection:
        with suppress(psycopg.errors.DuplicateObject):
            connection.execute(f"CREATE ROLE registry LOGIN PASSWORD '{password['registry']}'")
        with suppress(psycopg.errors.DuplicateDatabase):
            connection.execute("CREATE DATABASE registry OWNER registry TEMPLATE template0")


# -- processes -----------------------------------------------------------------------------------


def members(folder: Path) -> dict[str, str]:
    """Return the role and state of each server, as Patroni tells; those that it does not know are
    left out.
    """
    for ports in known(folder)["nodes"].values():
        with suppress(OSError, ValueError):
            place = f"http://127.0.0.1:{ports[1]}/cluster"
            with urllib.request.urlopen(place, timeout=2) as answer:
                told = json.load(answer)["members"]
            return {m["name"]: f"{m['role']}, {m['state']}" for m in told}
    return {}


def wait_for_leader(folder: Path, *, at_least: int = 2, other_than: str = "") -> str:
    """Wait for a leader and a synchronous standby, of so many running servers; return the leader's
    name.
    """

    def look() -> str:
        told = {n: t for n, t in members(folder).items() if t.endswith(("running", "streaming"))}
        leader = next((n for n, t in told.items() if t.startswith("leader")), "")
        synchronous = any(t.startswith("sync_standby") for t in told.values())
        return leader if leader != other_than and synchronous and len(told) >= at_least else ""

    return str(wait_until(look, "a leader with a synchronous standby"))


def wait_until(look: Any, what: str) -> Any:
    """Wait until a call returns something true, and return that."""
    deadline = time.monotonic() + PATIENCE
    while not (found := look()):
        if time.monotonic() > deadline:
            sys.exit(f"waited {PATIENCE:.0f} s for {what}; see the logs in the folder")
        time.sleep(0.2)
    return found


def run(folder: Path, name: str, command: list[str]) -> None:
    """Start a program that outlives this one, unless it runs already."""
    if pid_of(folder, name):
        return
    with (folder / f"{name}.log").open("ab") as log:
        started = subprocess.Popen(  # noqa: S603  (a list of words)
            command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True
        )
    write(folder / f"{name}.pid", str(started.pid))


def pid_of(folder: Path, name: str) -> int:
    """Return the process id of a program that was started, 0 if it does not run."""
    with suppress(OSError, ValueError):
        pid = int((folder / f"{name}.pid").read_text())
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
        if name.partition(".")[0].encode() in command and alive(pid):
            return pid
    return 0


def postmaster(folder: Path, name: str) -> int:
    """Return the process id of a server, 0 if it does not run."""
    with suppress(OSError, ValueError, IndexError):
        pid = int((folder / f"{name}.data" / "postmaster.pid").read_text().splitlines()[0])
        if b"postgres" in Path(f"/proc/{pid}/cmdline").read_bytes():
            return pid
    return 0


def alive(pid: int) -> bool:
    """Return whether a process is there and has not ended."""
    with suppress(OSError):
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        return state != "Z"
    return False


def free_ports(count: int) -> list[int]:
    """Return ports that nobody uses at present."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [found.getsockname()[1] for found in sockets]
    for found in sockets:
        found.close()
    return ports


def known(folder: Path) -> dict[str, Any]:
    """Return the ports and passwords of the cluster in a folder."""
    try:
        found: dict[str, Any] = json.loads((folder / "cluster.json").read_text())
    except FileNotFoundError:
        sys.exit(f"there is no cluster in {folder}: start it first")
    return found


def write(path: Path, text: str) -> None:
    """Write a file that only its owner can read."""
    path.touch(mode=0o600)
    path.write_text(text)


if __name__ == "__main__":
    sys.exit(main())
