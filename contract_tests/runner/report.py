"""Run the contract tests on a store and report the results, the skips and the level reached."""

from __future__ import annotations

import platform
import random
import re
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from hypothesis.configuration import set_hypothesis_home_dir

from contract_tests.harness import Harness, harness_class
from contract_tests.runner.bound import BOUND, NeverEnded, bounded
from registry_api import CONTRACT_VERSION
from registry_api.errors import UsageError

__all__ = ["check"]

# The group of each module, in the order in which they run: quick tests come first.
GROUPS = {
    "test_capability": "capability",
    "test_engine": "engine",
    "test_commit": "commit",
    "test_values": "values",
    "test_idempotency": "idempotency",
    "test_chain": "chain",
    "test_counts": "counts",
    "test_feed": "feed",
    "test_pages": "read and list",
    "test_move_target": "move target",
    "test_role": "role",
    "test_source": "source",
    "test_compaction": "compaction",
    "test_leases": "leases",
    "test_race": "race",
    "test_process": "process",
    "test_server": "server",
    "test_crash": "crash",
    "test_model": "model",
    "test_equivalence": "equivalence",
    "test_speed": "speed",
}
Progress = Callable[[str, int, int], None]

_FRAMES = re.compile(
    r"/site-packages/(_pytest|pytest|pluggy|hypothesis)/|/contract_tests/(conftest\.py|runner/)"
)


@dataclass(slots=True, eq=False)  # eq=False: pytest keeps its plugins in sets
class _Run:
    """A pytest plugin that counts passed, failed, skipped and seconds per store and group."""

    progress: Progress
    core_only: bool
    bound: float
    gave_up: Callable[[], None]
    soonest: frozenset[str] = frozenset()
    total: int = 0
    done: int = 0
    places: dict[str, tuple[str, str]] = field(default_factory=dict)
    semantics: dict[str, str] = field(default_factory=dict)
    start: float = field(default_factory=time.monotonic)
    groups: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)
    failed: list[dict[str, Any]] = field(default_factory=list)
    skipped: list[dict[str, str]] = field(default_factory=list)
    speed: dict[str, dict[str, float]] = field(default_factory=dict)
    incomplete: bool = False  # skipped although the store declares what the test needs

    def pytest_configure(self, config: pytest.Config) -> None:
        # The longer styles parse source, which fails in CPython 3.11 while threads run (gh-106905).
        config.option.tbstyle = "native"

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        order = list(GROUPS)
        items.sort(key=lambda i: (_name(i) not in self.soonest, order.index(i.path.stem)))
        if self.core_only:
            items[:] = [i for i in items if i.get_closest_marker("needs") is None]
        for item in items:
            store = item.callspec.params["backend_name"]  # type: ignore[attr-defined]
            self.places[item.nodeid] = str(store), GROUPS[item.path.stem]
            text = getattr(item.obj, "__doc__", "") or ""  # type: ignore[attr-defined]
            self.semantics[item.nodeid] = " ".join(text.split())
        self.total, self.start = len(items), time.monotonic()

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> Iterator[None]:
        yield from self._bounded(item)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Iterator[None]:
        yield from self._bounded(item)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_teardown(self, item: pytest.Item) -> Iterator[None]:
        yield from self._bounded(item)

    def _bounded(self, item: pytest.Item) -> Iterator[None]:
        try:
            with bounded(self.bound, lambda: self._stuck(item)):
                yield
        except NeverEnded as error:
            pytest.fail(str(error))

    def _stuck(self, item: pytest.Item) -> None:
        """Report the results so far and give up, since nothing can end the test."""
        store, group = self.places[item.nodeid]
        error = (
            f"the test did not end within {self.bound:g} s and could not be ended; the run stops"
        )
        found = _not_run(item.nodeid.rpartition("/")[2], error)
        self.failed.append(
            found
            | {"store": store, "group": group, "semantics": self.semantics[item.nodeid]}
            | {"after": round(time.monotonic() - self.start, 1)}
        )
        self.gave_up()

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self.failed.append(_not_run(report.nodeid, report.longreprtext))

    def pytest_internalerror(self, excrepr: object) -> None:
        self.failed.append(_not_run("", str(excrepr)))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        store, group = self.places[report.nodeid]
        found = self.groups.setdefault(store, {}).setdefault(
            group, {"passed": 0, "failed": 0, "skipped": 0, "seconds": 0.0}
        )
        found["seconds"] += report.duration
        path, _, name = report.nodeid.partition("::")  # a store's name may have slashes in it
        test = f"{path.rpartition('/')[2]}::{name}"
        if report.failed:
            found["failed"] += 1
            self.failed.append(
                {
                    "store": store,
                    "group": group,
                    "test": test,
                    "semantics": self.semantics[report.nodeid],
                    "after": round(time.monotonic() - self.start, 1),
                    "error": _writable(_shortened(report.longreprtext)),
                    "processes": _section(report, "errors of other processes"),
                    "history": _section(report, "last calls to the store"),
                    "seed": _section(report, "seed"),
                }
            )
        elif report.skipped:
            found["skipped"] += 1
            reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else ""
            reason = _writable(str(reason))
            self.skipped.append({"store": store, "test": test, "reason": reason})
            self.incomplete |= "does not declare" not in str(reason)
        elif report.when == "call":
            found["passed"] += 1
            if report.user_properties:
                self.speed[store] = dict(report.user_properties)  # type: ignore[arg-type]
        if report.when == "teardown":
            self.done += 1
            self.progress(name, self.done, self.total)

    def level(self, code: int) -> str:
        """Return the level reached: ``none`` unless every test of the level ran and passed."""
        if code != pytest.ExitCode.OK or self.incomplete or not self.done == self.total > 0:
            return "none"
        return "core" if self.core_only else "full"


def _name(item: pytest.Item) -> str:
    return f"{item.path.stem}::{getattr(item, 'originalname', item.name)}"


def _not_run(what: str, error: str) -> dict[str, Any]:
    """Return the failure entry of a part of the suite that could not run."""
    empty = dict.fromkeys(("store", "group", "semantics", "history", "processes", "seed"), "")
    return {"test": what or "the suite", "after": None, "error": error, **empty}


def _section(report: pytest.TestReport, name: str) -> str:
    return _writable("\n".join(text for title, text in report.sections if title == name))


def _shortened(text: str) -> str:
    """Return a traceback without the frames of pytest, pluggy and hypothesis."""
    kept, skipping = list[str](), False
    for line in text.splitlines():
        if line.startswith("  File "):
            skipping = _FRAMES.search(line) is not None
        elif not line.startswith("    "):
            skipping = False
        if not skipping:
            kept.append(line)
    return "\n".join(kept)


def _writable(text: str) -> str:
    """Return text that can be encoded: a test may have sent a lone surrogate to a store."""
    return text.encode("utf-8", "backslashreplace").decode()


def _stores_of(name: str, pair: str | None) -> list[str]:
    """Return the stores that a name stands for; ``dual``: the move of a pair in each phase."""
    if name != "dual":
        if pair is not None:
            raise UsageError("--pair is for dual", next_step="registry-backend contract dual")
        return [name]
    source, comma, target = (pair or "").partition(",")
    if pair is not None and not (source and comma and target):
        raise UsageError(f"--pair {pair} is not two stores", next_step="e.g. --pair sqlite,yours")
    move = f":{source}+{target}" if pair else ""
    return [f"dual{n}{move}" for n in range(5)]


def check(
    name: str,
    *,
    core_only: bool = False,
    first: bool = False,
    seed: int | None = None,
    harness: str | None = None,
    pair: str | None = None,
    bound: float = BOUND,
    soonest: frozenset[str] = frozenset(),
    progress: Progress,
    partly: Callable[[dict[str, Any], bool], None] = lambda report, last: None,
) -> dict[str, Any]:
    """Run the suite on a store and return the report in the form of ``--json``.

    ``first`` stops at the first failure. ``harness`` names the class that sets up the store and
    ``pair`` the source and target of ``dual``. A test that takes more than ``bound`` seconds fails.
    The tests in ``soonest``, named ``module::function``, run before the others. ``partly`` is
    called after each test with the report so far; if its second argument is true, a test could not
    be ended, no further call follows, and ``partly`` must end the process.

    Raises UnknownBackend if no plugin offers the store, and UsageError if ``harness`` does not name
    a harness or ``name`` has a location but no harness.
    """
    if "://" in name and harness is None and not name.startswith("mutant://"):
        raise UsageError(
            f"{name} is one location for all tests, which overwrite its data",
            next_step="Give the store's name alone, or separate the tests with a --harness",
        )
    kind = harness_class(harness)
    seed = random.randrange(2**32) if seed is None else seed
    run = _Run(
        progress, core_only, bound, gave_up=lambda: partly(report("none"), True), soonest=soonest
    )
    start, stores = time.monotonic(), list[dict[str, Any]]()

    def report(level: str) -> dict[str, Any]:
        for store in stores:
            store["groups"] = dict(_rounded(run.groups.get(store["name"], {})))
            store["speed"] = run.speed.get(store["name"], {})
        return {
            "store": name,
            "level": level,
            "suite": version("registry-backend"),
            "contract": CONTRACT_VERSION,
            "python": platform.python_version(),
            "platform": platform.platform(),
            "seed": seed,
            "seconds": round(time.monotonic() - start, 1),
            "stores": stores,
            "failed": run.failed,
            "skipped": run.skipped,
            "warnings": [w for store in stores for w in _too_slow(store["name"], store["speed"])],
        }

    def told(what: str, done: int, total: int) -> None:
        progress(what, done, total)
        partly(report("none"), False)

    run.progress = told
    with tempfile.TemporaryDirectory(prefix="registry-contract-") as folder:
        set_hypothesis_home_dir(folder)  # or it writes into the user's folder
        places = {s: Path(folder) / s.replace("/", "_") for s in _stores_of(name, pair)}
        stores += [_described(kind(store, place)) for store, place in places.items()]
        (Path(folder) / "pytest.ini").write_text("[pytest]\n")  # not the user's own
        options = ["-c", f"{folder}/pytest.ini", f"--rootdir={folder}"]
        options += [f"--basetemp={folder}/tests", f"--hypothesis-seed={seed}"]
        plugins = [o for p in ("cacheprovider", "terminal", "randomly") for o in ("-p", f"no:{p}")]
        names = ",".join(s["name"] for s in stores)
        # By path: the current folder may contain another folder named contract_tests.
        wanted = [str(Path(__file__).parents[1]), f"--registry-backend={names}"]
        if harness:
            wanted.append(f"--registry-harness={harness}")
        if first:
            options.append("--maxfail=1")
        code = pytest.main([*options, *plugins, *wanted], plugins=[run])
    if code != pytest.ExitCode.OK and not run.failed:
        run.failed.append(_not_run("", f"pytest ended with {pytest.ExitCode(code).name}"))
    return report(run.level(code))


def _too_slow(name: str, speed: dict[str, float]) -> Iterator[str]:
    from contract_tests.test_speed import FLOORS  # noqa: PLC0415  (pytest rewrites it on import)

    for what, least in FLOORS.items():
        if what in speed and speed[what] < least:
            yield f"{name}: {speed[what]:g} {what}, below the minimum of {least:g}"


def _described(harness: Harness) -> dict[str, Any]:
    with harness:
        info = harness.info
    return {
        "name": harness.name,
        "contract": info.contract_version,
        "capabilities": sorted(info.capabilities),
    }


def _rounded(groups: dict[str, dict[str, Any]]) -> Iterator[tuple[str, dict[str, Any]]]:
    for group in GROUPS.values():
        if group in groups:
            yield group, groups[group] | {"seconds": round(groups[group]["seconds"], 2)}
