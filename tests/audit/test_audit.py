"""The audit finds every place that uses a registry, and no other."""

import json
import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from backends.admin.audit.function import Names
from backends.admin.audit.project import audit
from backends.admin.audit.sites import Access, Kind
from backends.admin.cli import main
from registry_api.migration import PhaseFile
from tests import legacy
from tests.audit.looking import LOCKS, OTHERS, SERVER, marked, written

LEGACY = os.environ.get("REGISTRY_TEST_LEGACY")


def found_in(folder, file):
    sites = audit(folder, Names()).sites
    return sorted((site.line, str(site.kind)) for site in sites if site.file == file)


@pytest.fixture
def program(tmp_path):
    return written(tmp_path, locks=LOCKS, server=SERVER, others=OTHERS)


@pytest.mark.parametrize(("name", "text"), [("locks", LOCKS), ("server", SERVER)])
def test_each_place_is_found_and_no_other(program, name, text):
    """Through variables, attributes, parameters, lists, helpers and other files."""
    assert found_in(program, f"{name}.py") == marked(text)


def test_other_files_are_no_registries(program):
    """A function that reads a registry for one caller and another file for another is a place of
    the first one only; a text that names the file is none, nor is a dict of the same keys."""
    assert found_in(program, "others.py") == []


def test_a_locked_file_is_read_or_written(program):
    """By what its body does, with the keys that it uses; a counter is named as such."""
    sites = [s for s in audit(program, Names()).sites if s.kind is Kind.LOCKED_FILE]
    assert [(s.function, s.access, set(s.touches)) for s in sites] == [
        ("deploy", Access.WRITE, {"agents", "active_count"}),
        ("status", Access.READ, {"agents"}),
    ]
    assert [s.by_hand for s in sites] == ["", ""]


def test_what_no_rule_can_rewrite_says_why(program):
    """A file that is written without having been read, and one that is written twice."""
    twice = """
    def twice(path):
        with LockedRegistryFile(path) as (registry, f):
            f.write("a")
            f.write("b")
    """
    written(program, twice=twice)
    by_hand = {(s.file, s.function): s.by_hand for s in audit(program, Names()).sites if s.by_hand}
    assert "did not read" in by_hand["server.py", "create"]
    assert by_hand["twice.py", "twice"] == "its body writes the file 2 times"


def test_other_teams_name_their_own_files(tmp_path, capsys):
    """Any file name, lock, reader, writer and finder; the defaults then find nothing."""
    text = """
    import json

    def tasks():
        with open("tasks.json") as f:
            return json.load(f)

    def add(task):
        with Store("tasks.json") as (found, f):
            found["tasks"].append(task)
            f.write(json.dumps(found))
        save("tasks.json", fetch("tasks.json"))
        return where(task)
    """
    written(tmp_path, app=text)
    assert main(["audit", str(tmp_path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["sites"] == []
    more = [*("--file", "tasks.json", "--lock", "Store"), *("--reader", "fetch")]
    more += ["--writer", "save", "--finder", "where"]
    assert main(["audit", str(tmp_path), "--json", *more]) == 0
    kinds = [site["kind"] for site in json.loads(capsys.readouterr().out)["sites"]]
    assert sorted(kinds) == sorted(
        ["load", "locked file", "change", "locked read", "locked write", "look-up"]
    )


def test_a_gate_for_ci(program, capsys):
    """--fail-on exits 3; tests do not count, and a file that cannot be parsed fails the gate."""
    assert main(["audit", str(program), "--fail-on", "writes"]) == 3
    assert "server.py" in capsys.readouterr().out
    (program / "tests").mkdir()
    for name in ("locks", "server", "others"):
        (program / f"{name}.py").rename(program / "tests" / f"{name}.py")
    assert main(["audit", str(program), "--fail-on", "any"]) == 0
    (program / "old.py").write_text("print 'python 2'\n")
    assert main(["audit", str(program), "--fail-on", "writes"]) == 3
    assert "not audited: old.py: line 1" in capsys.readouterr().out
    assert main(["audit", str(program)]) == 0
    assert main(["audit", str(program / "nowhere")]) == 2
    (program / "empty").mkdir()
    assert main(["audit", str(program / "empty"), "--fail-on", "writes"]) == 2


def test_phase_4_waits_for_the_code(program, tmp_path_factory, capsys):
    """With --source-code it is refused while the code writes registry files; nothing changes."""
    workspace = tmp_path_factory.mktemp("workspace")
    legacy.write_task(workspace, "TASK-1", agents=[{"id": "a", "status": "running"}])
    where = ("--workspace", str(workspace), "--source-code", str(program))
    assert main(["switch", "3", *where]) == 0
    capsys.readouterr()
    assert main(["switch", "4", *where]) == 6
    said = capsys.readouterr().err
    assert "registry-backend audit" in said
    assert "the first is locks.py:" in said
    assert PhaseFile(workspace / ".registry").read().phase == 3
    for name in ("locks", "server"):
        (program / f"{name}.py").unlink()
    assert main(["switch", "4", *where]) == 0


@pytest.mark.parametrize("option", ["--json", "--html", "--sites"])
def test_every_form_names_each_place(program, capsys, option):
    """Whatever names the files of a program have."""
    odd = program / "<b>&.py"
    odd.write_text((program / "server.py").read_text())
    assert main(["audit", str(program), option]) == 0
    out = capsys.readouterr().out
    if option == "--json":
        found = json.loads(out)
        assert {s["file"] for s in found["sites"]} >= {"<b>&.py", "server.py"}
        assert found["summary"]["writes"] == sum(
            s["access"] == "write" and not s["is_test"] for s in found["sites"]
        )
    elif option == "--html":
        assert "<b>&.py" not in out
        assert "&lt;b&gt;&amp;.py" in out
    else:
        line = 1 + SERVER.splitlines().index(next(x for x in SERVER.splitlines() if "kill(" in x))
        assert f"server.py:{line + 2}: locked read, read: str(path) in kill" in out


@pytest.mark.parametrize(
    "text",
    ["", "(" * 500, "x = " + "[" * 80 + "]" * 80, "\x00", "async def f():\n  await f(*a, **b)\n",
     "match x:\n  case [1, *_]: pass\n", "class A:\n  def f(self): self.f(); self.x = self.x\n",
     "def f(a, b=1, *c, d, **e): return f(f(a, b=b), *c, d=d, **e)\n", "lambda: (yield)\n"],
)  # fmt: skip
def test_any_text_is_audited_or_named(tmp_path, text):
    """No file ends an audit."""
    (tmp_path / "odd.py").write_text(text)
    found = audit(tmp_path, Names())
    assert (found.files, found.sites) == (1, ())


def test_links_and_environments_are_left_out(program, tmp_path_factory):
    """A link is not followed, and installed packages are no part of the program."""
    elsewhere = written(tmp_path_factory.mktemp("elsewhere"), server=SERVER)
    (program / "link").symlink_to(elsewhere)
    (program / "venv").mkdir()
    (program / ".tox").mkdir()
    for folder in ("venv", ".tox"):
        written(program / folder, server=SERVER)
    assert audit(program, Names()).files == 3


def test_nothing_of_the_program_is_executed(tmp_path):
    """The audit reads files; it imports none."""
    (tmp_path / "app.py").write_text("raise SystemExit(9)\n")
    done = subprocess.run(
        [sys.executable, "-m", "backends.admin", "audit", str(tmp_path), "--json"],
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0


def test_a_reader_that_goes_ends_it_quietly(program):
    """As `| head` does, whose pipe is closed before everything is written."""
    for n in range(60):
        (program / f"server{n}.py").write_text(SERVER)
    command = [sys.executable, "-m", "backends.admin", "audit", str(program), "--sites"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""


@pytest.mark.skipif(not LEGACY, reason="REGISTRY_TEST_LEGACY names no legacy system")
def test_the_legacy_system():
    """At the revision of the migration report: at least what was counted by hand, in code and in
    tests, of each kind."""
    began = time.perf_counter()
    found = audit(Path(LEGACY), Names())
    assert time.perf_counter() - began < 10
    code, tests = found.count(tests=False), found.count(tests=True)
    counted = {
        Kind.LOCKED_FILE: (43, 3),
        Kind.LOCKED_READ: (21, 0),
        Kind.LOCKED_WRITE: (6, 0),
        Kind.LOAD: (26, 9),
        Kind.DUMP: (7, 3),
        Kind.PROBE: (34, 0),
        Kind.LOOK_UP: (47, 0),
        Kind.CHANGE: (108, 8),
    }
    for kind, (in_code, in_tests) in counted.items():
        assert code[kind] >= in_code, kind
        assert tests[kind] >= in_tests, kind
    assert code[Kind.LOCKED_FILE] == 43
    read_only = Counter(s.access for s in found.sites if s.kind is Kind.LOCKED_FILE)
    assert read_only[Access.READ] == 6
