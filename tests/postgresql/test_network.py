"""Hosts with a network of their own, of which one is cut off from the server.

Network namespaces need root, and a kernel that lets root make them. A cut-off host gets no error
from its kernel, as from a proxy that closes connections: its packets are lost.
"""

import json
import os
import random
import shutil
import subprocess
import sys
import time
from contextlib import ExitStack, closing, contextmanager, suppress
from urllib.parse import urlencode, urlsplit

import pytest

from contract_tests import build
from registry_api import Kind, RecordQuery, all_records, load_settings, open_store
from registry_api.errors import Busy
from tests.postgresql.server import PostgresServer
from tests.processes import wait_until
from tests.remote_kv.plugin import ROOT


def can_make_networks():
    if os.geteuid() != 0 or shutil.which("ip") is None:
        return False
    made = subprocess.run(["unshare", "-n", "true"], check=False, capture_output=True)
    return made.returncode == 0


pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(not can_make_networks(), reason="root, ip and network namespaces needed"),
]

CUT = 8.0  # seconds
LOST = 3000  # ms after which a connection without answers is given up

WRITER = """
import json, sys, time
from pathlib import Path
from contract_tests import build
from registry_api import Put, load_settings, new_changeset, open_store
from registry_api.errors import RegistryError
from registry_api.leases import leases_of

url, workspace, host, told = sys.argv[1:]
store = open_store(load_settings(workspace, env={}, backend=url, logs="off"))
leases, file = leases_of(store), open(told, "a", buffering=1)


def surely(call):
    errors, longest = [], 0.0
    while True:
        start = time.monotonic()
        try:
            return call(), errors, max(longest, time.monotonic() - start)
        except RegistryError as error:
            errors.append(type(error).__name__)
            longest = max(longest, time.monotonic() - start)
            time.sleep(0.05)


surely(lambda: build.make(store, host))
n = 0
while not Path(told + ".stop").exists():
    n += 1
    one = new_changeset(host, [Put(build.finding(host, finding_id=f"f{n}"))], expected=None)
    commit, errors, took = surely(lambda: store.commit(one))
    lease, more, longest = surely(lambda: leases.acquire_lease("only", host, seconds=2.0))
    line = {"n": n, "errors": errors + more, "took": max(took, longest), "at": time.monotonic()}
    print(json.dumps(line | {"token": lease.token if lease else 0}), file=file)
    time.sleep(0.02)
store.close()
"""


HOLDER = """
import sys, time
from registry_api import load_settings, open_store
from tests.postgresql.test_engine import engine_of

url, workspace = sys.argv[1:]
store = open_store(load_settings(workspace, env={}, backend=url, logs="off"))
with engine_of(store).writing("held"):
    time.sleep(600)
"""


def run(*command):
    subprocess.run(command, check=True, capture_output=True)


class Host:
    """A network namespace with one cable to this machine; ``address`` is this machine's end."""

    def __init__(self, name, number):
        self.name, self.cable = f"registry-{name}", f"rg{name}"
        self.address, self.inside = f"10.{number}.1.1", f"10.{number}.1.2"

    def set_up(self):
        run("ip", "netns", "add", self.name)
        peer = ("type", "veth", "peer", "name", "eth0", "netns", self.name)
        run("ip", "link", "add", self.cable, *peer)
        run("ip", "addr", "add", f"{self.address}/24", "dev", self.cable)
        run("ip", "link", "set", self.cable, "up")
        for words in (
            f"addr add {self.inside}/24 dev eth0",
            "link set eth0 up",
            "link set lo up",
        ):
            run("ip", "-n", self.name, *words.split())

    @contextmanager
    def running(self, program, *arguments):
        """Run a program on the host, and kill it at the end if it still runs."""
        command = ["ip", "netns", "exec", self.name, sys.executable, "-c", program, *arguments]
        with subprocess.Popen(command, env=os.environ | {"PYTHONPATH": str(ROOT)}) as process:
            try:
                yield process
            finally:
                process.kill()

    def url(self, server, **parameters):
        """Return the server's URL as it is reached from the host."""
        parts = urlsplit(server.url("postgres"))
        place = parts.netloc.replace("127.0.0.1", self.address)
        return parts._replace(netloc=place, query=urlencode(parameters)).geturl()

    def cut(self):
        run("ip", "link", "set", self.cable, "down")

    def reconnect(self):
        run("ip", "link", "set", self.cable, "up")

    def close(self):
        for command in (("ip", "link", "del", self.cable), ("ip", "netns", "del", self.name)):
            with suppress(subprocess.CalledProcessError):
                run(*command)


@pytest.fixture
def hosts():
    number, made = random.randrange(80, 240), []
    try:
        for n, name in enumerate("ab"):
            made.append(Host(f"{name}{os.getpid() % 100_000}", number + n))
            made[-1].set_up()
        yield made
    finally:
        for host in made:
            host.close()


@pytest.fixture
def server(tmp_path):
    with PostgresServer(tmp_path, settings={"listen_addresses": "*", "fsync": "on"}) as found:
        found.allow("10.0.0.0/8")
        yield found


def lines(path):
    """Return what a host has told, without a line that it is just writing."""
    whole = path.read_text().rpartition("\n")[0] if path.exists() else ""
    return [json.loads(line) for line in whole.splitlines()]


def test_a_host_is_cut_off_in_mid_commit(server, hosts, tmp_path):
    """The other host writes on, and takes over the lease. The host that was cut off gets typed
    errors within bounds; its retries apply once, and it does not hold the lease at the same time.
    """
    files = [tmp_path / f"{host.name}.told" for host in hosts]
    first, other = files
    with ExitStack() as stack:
        running = []
        for host, file in zip(hosts, files, strict=True):
            (folder := tmp_path / host.name).mkdir()
            url = host.url(server, tcp_user_timeout=LOST)
            arguments = (WRITER, url, str(folder), host.name, str(file))
            running.append(stack.enter_context(host.running(*arguments)))
        wait_until(lambda: all(len(lines(file)) > 20 for file in files))
        hosts[0].cut()
        cut = time.monotonic()
        time.sleep(CUT)
        hosts[0].reconnect()
        reconnected = time.monotonic()
        wait_until(lambda: lines(first)[-1]["at"] > reconnected + 1, timeout=60)
        for file in files:
            file.with_name(f"{file.name}.stop").touch()
        for process in running:
            assert process.wait(60) == 0
    meanwhile = [line for line in lines(other) if cut < line["at"] < reconnected]
    assert len(meanwhile) > 50
    assert max(line["took"] for line in meanwhile) < CUT / 2
    errors = {error for line in lines(first) for error in line["errors"]}
    assert errors <= {"OutcomeUnknown", "Unavailable", "Busy"}
    assert max(line["took"] for line in lines(first)) < 2 * (CUT + LOST / 1000)
    assert any(line["took"] > LOST / 2000 or line["errors"] for line in lines(first))
    (looking := tmp_path / "looking").mkdir()
    settings = load_settings(looking, env={}, backend=server.url("postgres"), logs="off")
    with closing(open_store(settings, read_only=True)) as store:
        for host, file in zip(hosts, files, strict=True):
            query = RecordQuery(task_id=host.name)
            found = [f.finding_id for f in all_records(store, Kind.FINDING, query)]
            assert sorted(found) == sorted(f"f{line['n']}" for line in lines(file))
            assert store.head(host.name).revision == 1 + len(found)
    held = sorted((line["token"], name) for name in (0, 1) for line in lines(files[name]))
    holders = dict(pair for pair in held if pair[0])
    assert len({pair for pair in held if pair[0]}) == len(holders)  # one holder a token
    assert {1} <= {holders[line["token"]] for line in meanwhile if line["token"]}


def test_a_host_is_lost_in_the_middle_of_a_transaction(server, hosts, tmp_path):
    """Its task can be written again when its connection is given up. The server's limit for idle
    transactions does not count here: it waits for the next statement of a pipeline.
    """
    waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND granted"
    bounds = {"keepalives_idle": 1, "keepalives_interval": 1, "keepalives_count": 2}
    for folder in (there := tmp_path / "there", here := tmp_path / "here"):
        folder.mkdir()
    settings = load_settings(here, env={}, backend=server.url("postgres"), logs="off")
    with closing(open_store(settings)) as store:
        build.make(store, "held")
        url = hosts[0].url(server, tcp_user_timeout=LOST, **bounds)
        with hosts[0].running(HOLDER, url, str(there)):
            wait_until(lambda: server.run(waiting) == [(2,)])
            with pytest.raises(Busy):
                build.put(store, build.finding("held"), expected=None)
            hosts[0].cut()
            wait_until(lambda: server.run(waiting) == [(0,)])
            build.put(store, build.finding("held"), expected=None)
