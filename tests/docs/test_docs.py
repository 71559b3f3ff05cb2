"""The docs agree with the code."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from mcp.server.mcpserver.utilities.func_metadata import func_metadata

from backends.admin.app import app
from backends.admin.cli import _add_commands
from contract_tests.mutation import MUTANTS
from contract_tests.mutation import report as mutation_report
from dashboard.api import actions, read
from dashboard.cli import app as dashboard
from orchestrator.cli import app as orchestrator
from orchestrator.mcp.tool_offers import offer_of
from orchestrator.mcp.tools import Tools
from orchestrator.mcp.waiting import Waiting
from orchestrator.settings import OrchestratorSettings
from registry_api import Capability
from registry_api.plugins import Hooks
from registry_api.settings import Settings
from tests import legacy

ROOT = Path(__file__).parents[2]


def commands():
    """Return the name of every command, including those of plugins."""
    _add_commands()
    return {n for n in app if not n.startswith("-")}


def named_tests():
    text = "".join((ROOT / "docs" / f"{n}.md").read_text() for n in ("report", "legacy-faults"))
    return sorted(set(re.findall(r"`((?:contract_tests|tests)/[\w/]+\.py)::(\w+)`", text)))


@pytest.mark.parametrize(("path", "name"), named_tests())
def test_every_test_named_in_the_report_exists(path, name):
    """Each test that a row of docs/report.md or docs/legacy-faults.md names exists."""
    assert f"def {name}(" in (ROOT / path).read_text()


def test_every_setting_is_documented():
    """docs/configuration.md has a row for each variable, and no other."""
    text = (ROOT / "docs" / "configuration.md").read_text()
    rows = re.findall(r"^\| `(REGISTRY_\w+)` \|", text, re.MULTILINE)
    names = {f"REGISTRY_{n.upper()}" for n in Settings.model_fields}
    theirs = OrchestratorSettings.model_fields.keys() - {"kinds"}
    names |= {f"REGISTRY_ORCHESTRATOR_{n.upper()}" for n in theirs}
    assert sorted(rows) == sorted(names)


def test_the_readme_names_commands_that_exist():
    """Every `registry-backend VERB` in the docs is a command."""
    names = commands()
    for path in (
        ROOT / "README.md",
        ROOT / "docs" / "report.md",
        ROOT / "CHANGELOG.md",
        ROOT / "docs" / "operating.md",
    ):
        verbs = re.findall(r"registry-backend ([a-z]+)", path.read_text())
        assert set(verbs) <= names, path


def test_the_readmes_python_runs(tmp_path, monkeypatch, capsys):
    """The example runs unchanged."""
    code = re.search(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)[1]
    monkeypatch.setenv("REGISTRY_WORKSPACE", str(tmp_path))
    exec(code, {})


def test_every_hook_is_documented():
    """docs/writing-a-backend.md has a row for each hook, and no other."""
    text = (ROOT / "docs" / "writing-a-backend.md").read_text()
    rows = re.findall(r"^\| `(registry_\w+)\(", text, re.MULTILINE)
    assert sorted(rows) == sorted(n for n in vars(Hooks) if n.startswith("registry_"))


def test_every_capability_is_documented():
    """docs/writing-a-backend.md names every capability that a store can declare."""
    text = (ROOT / "docs" / "writing-a-backend.md").read_text()
    assert all(f"`{name}`" in text for name in [c.name for c in Capability])


def test_every_command_is_in_the_readme():
    """The README's table names each command."""
    table = (ROOT / "README.md").read_text().partition("## Commands")[2].partition("## More")[0]
    names = commands()
    assert {n for n in names if f"`{n}" in table} == names


@pytest.mark.parametrize("path", sorted((ROOT / "examples").glob("*.py")), ids=lambda p: p.name)
def test_examples_run(path, tmp_path):
    """The examples run as a user would run them, in an empty workspace."""
    env = {**os.environ, "REGISTRY_WORKSPACE": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, path], env=env, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout


def test_the_raw_side_of_the_benchmarks_is_short():
    """At most 80 lines, so that a reader can check what the benchmarks compare with."""
    assert len((ROOT / "benchmarks" / "raw.py").read_text().splitlines()) <= 80


def test_the_contracts_page_is_current():
    """docs/contract.md agrees with the contract, the tests and the mutants. After a change of
    one of them, run `make contract-doc`."""
    page = (ROOT / "docs" / "contract.md").read_text()
    found = json.loads((ROOT / "docs" / "kills.json").read_text())
    assert list(found) == list(MUTANTS)
    assert all(hit["killed_by"] for hit in found.values())
    assert page == mutation_report.written(page, found)
    assert f"{len(MUTANTS)} stores" in page
    named = {name for hit in found.values() for name in hit["killed_by"]}
    assert named <= {test.name for test in mutation_report.tests()}


def test_every_contract_test_says_what_it_checks():
    """Each test has a docstring, and every line of the contract has a test."""
    tests = list(mutation_report.tests())
    assert len(tests) > 60
    assert all(test.says for test in tests)
    lines = mutation_report.contract_lines()
    assert sorted(lines) == list(range(1, 14))
    assert {n for test in tests for n in test.numbers} == set(lines)


def test_every_tool_has_an_example_that_it_takes():
    """docs/orchestrator.md has one row per tool, with arguments that are valid for it."""
    rows = re.findall(
        r"^\| `(\w+)` \| `(\{.*\})` \|$",
        (ROOT / "docs" / "orchestrator.md").read_text(),
        re.MULTILINE,
    )
    tools = {n: f for of in (Tools, Waiting) for n, f in vars(of).items() if offer_of(f)}
    assert [name for name, _ in rows] == list(tools)
    for name, example in rows:
        model = func_metadata(
            tools[name], skip_names=["self", "context", "asked_about", "confirmed"]
        ).arg_model
        given = json.loads(example)
        assert given.keys() <= model.model_fields.keys(), name
        model.model_validate(given)


def test_the_first_task_runs(tmp_path):
    """The program described in docs/orchestrator.md runs to its end: conductor, server, agents."""
    program = ROOT / "examples" / "orchestrator" / "first_task.py"
    env = {k: v for k, v in os.environ.items() if not k.startswith("REGISTRY_")}
    done = subprocess.run(
        [sys.executable, program, tmp_path], env=env, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[:1] == [f"workspace {tmp_path}"]
    assert lines[1].endswith("INITIALIZED; next: deploy_agent")
    assert "polish, flawed at first: REVISION_NEEDED" in lines
    assert lines[-1].endswith("COMPLETED")


def test_the_orchestrators_python_runs(tmp_path):
    """The example runs unchanged, on a task and an agent with its names."""
    code = re.search(
        r"```python\n(.*?)```", (ROOT / "docs" / "orchestrator.md").read_text(), re.DOTALL
    )[1]
    legacy.write_task(tmp_path, "TASK-1", agents=[{"id": "builder-1", "status": "running"}])
    exec(code, {"workspace": tmp_path})


@pytest.mark.parametrize(
    ("program", "page", "app"),
    [
        ("registry-orchestrator", "orchestrator.md", orchestrator),
        ("registry-dashboard", "dashboard.md", dashboard),
    ],
)
def test_the_programs_commands_and_options_exist(program, page, app):
    """Every `registry-… VERB --option` in the docs exists."""
    for path in (ROOT / "README.md", ROOT / "docs" / page):
        used = re.findall(program + r" ([a-z]+)((?: --[a-z-]+| [^ `\n]+)*)", path.read_text())
        assert used
        for verb, rest in used:
            taken = {n for a in app[verb].assemble_argument_collection() for n in a.names}
            assert set(re.findall(r"--[a-z-]+", rest)) <= taken


def test_every_route_is_documented():
    """docs/dashboard.md has a row for each route of the API, and no other."""
    rows = re.findall(
        r"^\| `(/(?:api/[^`]*|metrics))` \|",
        (ROOT / "docs" / "dashboard.md").read_text(),
        re.MULTILINE,
    )
    routers = (read.router, read.numbers, actions.router)
    assert rows == [route.path for router in routers for route in router.routes]


PAGES = sorted((ROOT / "docs").glob("*.md"))
PACKAGES = "registry_api|backends|orchestrator|dashboard|contract_tests"


@pytest.mark.parametrize("page", [*PAGES, ROOT / "README.md"], ids=lambda p: p.name)
def test_every_module_named_in_the_docs_exists(page):
    """Each `package/…` in backticks is a file or folder; `module.py`: `name` is defined there."""
    text = page.read_text()
    named = set(re.findall(rf"`((?:{PACKAGES})/[\w./-]*)(?:::\w+)?`", text))
    assert {path for path in named if not (ROOT / path).exists()} == set()
    for path, names in re.findall(rf"`((?:{PACKAGES})/[\w./-]*\.py)`:\s+((?:`\w+`(?:, )?)+)", text):
        code = (ROOT / path).read_text()
        for name in re.findall(r"\w+", names):
            assert re.search(rf"\b(?:def|class) {name}\b|^{name}\b", code, re.MULTILINE), (
                f"{path} defines no {name}"
            )


def test_every_page_is_in_the_index():
    """docs/index.md links every page, and every link of a page in docs/ or the README works."""
    linked = re.findall(r"\]\(([\w-]+\.md)\)", (ROOT / "docs" / "index.md").read_text())
    assert sorted(linked) == sorted(p.name for p in PAGES if p.name != "index.md")
    for page in [*PAGES, ROOT / "README.md"]:
        for link in re.findall(r"\]\((?!https?:|#)([^)#\s]+)(?:#[^)]*)?\)", page.read_text()):
            assert (page.parent / link).exists(), f"{page.name}: {link}"
