"""The mutation report: which contract tests detect which mutants.

``python -m contract_tests.mutation.report DOCS`` runs the suite on every mutant. It writes the
results to ``DOCS/kills.json`` and renders, between the markers of ``DOCS/contract.md``, tables from
them, from the tests' docstrings and from the docstring of ``registry_api.store``.
"""

from __future__ import annotations

import importlib
import json
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hypothesis import Phase, settings

from contract_tests.mutation import MUTANTS
from contract_tests.runner.report import GROUPS, check
from registry_api import store

__all__ = ["Test", "contract_lines", "render", "tests"]

BEGIN, END = "<!-- begin: written by `make contract-doc` -->", "<!-- end -->"
_LINE = re.compile(r"^(\d+)\. (.*?)(?=^\d+\. |\Z)", re.MULTILINE | re.DOTALL)
_NUMBERED = re.compile(r"Semantics ([0-9, and]+): ")


@dataclass(frozen=True, slots=True)
class Test:
    """One contract test: ``module::function``, and what its docstring says."""

    name: str
    group: str
    says: str

    @property
    def numbers(self) -> list[int]:
        """The numbers of the contract's lines that it checks."""
        found = _NUMBERED.match(self.says)
        return [int(n) for n in re.findall(r"\d+", found[1])] if found else []

    @property
    def short(self) -> str:
        """The docstring without the numbers, with a capital first letter."""
        text = _NUMBERED.sub("", self.says)
        return text[0].upper() + text[1:]


def tests() -> Iterator[Test]:
    """Yield every contract test, in the order in which they run."""
    for module, group in GROUPS.items():
        found = importlib.import_module(f"contract_tests.{module}")
        for name, value in vars(found).items():
            if name.startswith("test_") and value.__module__ == found.__name__:
                says = " ".join((value.__doc__ or "").split())
                yield Test(f"{module}::{name}", group, says)


def contract_lines() -> dict[int, str]:
    """Return the numbered lines of the contract, from the docstring of ``registry_api.store``."""
    text = (store.__doc__ or "").partition("Semantics")[2]
    return {int(n): " ".join(line.split()) for n, line in _LINE.findall(text)}


def try_mutant(name: str) -> dict[str, Any]:
    """Run the whole suite on a mutant in a new process; return which tests detected it."""
    command = [sys.executable, "-m", "contract_tests.mutation.report", "--one", name]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def _one(name: str) -> dict[str, Any]:
    quick = settings(phases=(Phase.explicit, Phase.generate))  # no shrinking: a failure is enough
    settings.register_profile("kills", quick)
    settings.load_profile("kills")
    report = check(f"mutant://{name}", seed=1, progress=lambda *_: None)
    killed = {re.sub(r"\.py::(\w+).*", r"::\1", failure["test"]) for failure in report["failed"]}
    after = min((f["after"] for f in report["failed"] if f["after"] is not None), default=None)
    return {"after": after, "killed_by": sorted(killed)}


def recheck(name: str, killers: Iterable[str], *, harness: str | None = None) -> dict[str, Any]:
    """Run the suite, ``killers`` first, on a mutant until the first failure; return the report.

    ``harness``: one that names another store than sqlite to make the mutant of.
    """
    return check(
        f"mutant://{name}",
        seed=1,
        first=True,
        harness=harness,
        soonest=frozenset(killers),
        progress=lambda *_: None,
    )


def render(found: dict[str, Any]) -> str:
    """Return the tables of the mutation report in Markdown."""
    known = list(tests())
    by_test: dict[str, list[str]] = {test.name: [] for test in known}
    for mutant, hit in found.items():
        for killer in hit["killed_by"]:
            by_test.setdefault(killer, []).append(mutant)
    out = []
    for number, line in contract_lines().items():
        out += [f"### {number}. {line}", "", *_table(number, known, by_test), ""]
    out += ["### Tests outside the numbered lines", "", *_table(None, known, by_test), ""]
    out += [
        "### The mutants",
        "",
        "*after*: seconds from the start of a whole run to the first failure.",
        "",
    ]
    out += ["| mutant | fault | detected by | after |", "|---|---|---|---|"]
    groups = {test.name: test.group for test in known}
    for mutant, kind in MUTANTS.items():
        hit = found[mutant]["killed_by"]
        where = ", ".join(dict.fromkeys(g for t, g in groups.items() if t in hit))
        says, after = " ".join((kind.__doc__ or "").split()), found[mutant]["after"]
        out.append(f"| `{mutant}` | {says} | {len(hit)} test(s): {where} | {after} s |")
    out += ["", "### Tests that detect no mutant", ""]
    idle = [test for test in known if not by_test[test.name]]
    out += [f"- `{test.name}`: {test.short}" for test in idle] or ["None."]
    return "\n".join(out)


def _table(number: int | None, known: list[Test], by_test: dict[str, list[str]]) -> list[str]:
    chosen = [t for t in known if (number in t.numbers if number else not t.numbers)]
    rows = ["| test | checks | detects |", "|---|---|---|"]
    for test in chosen:
        finds = ", ".join(f"`{m}`" for m in by_test[test.name]) or "–"
        says = test.short.replace("|", "\\|")
        rows.append(f"| `{test.name}` | {says} | {finds} |")
    return rows


def written(page: str, found: dict[str, Any]) -> str:
    """Return the page with the tables between its markers."""
    before, _, rest = page.partition(BEGIN)
    return f"{before}{BEGIN}\n\n{render(found)}\n\n{END}{rest.partition(END)[2]}"


def main(docs: Path) -> None:
    """Run the suite on every mutant, two at a time, and write both files."""
    found: dict[str, dict[str, Any]] = {}
    with ThreadPoolExecutor(2) as pool:
        for name, hit in zip(MUTANTS, pool.map(try_mutant, MUTANTS), strict=True):
            found[name] = hit
            sys.stderr.write(f"{name}: {len(hit['killed_by'])} test(s), after {hit['after']} s\n")
    text = json.dumps(found, indent=1) + "\n"
    (docs / "kills.json").write_text(text, encoding="utf-8")
    page = docs / "contract.md"
    page.write_text(written(page.read_text(encoding="utf-8"), found), encoding="utf-8")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        sys.stdout.write("\n" + json.dumps(_one(sys.argv[2])) + "\n")
    elif sys.argv[1:2] == ["--recheck"]:
        sys.stdout.write("\n" + json.dumps(recheck(sys.argv[2], sys.argv[3:])) + "\n")
    else:
        main(Path(sys.argv[1]))
