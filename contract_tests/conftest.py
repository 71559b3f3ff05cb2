"""Run every test once per store; show the contract line, the calls and the seed with a failure."""

from __future__ import annotations

import random
from collections.abc import Callable, Generator, Iterator
from pathlib import Path

import pytest

from contract_tests.harness import Harness, harness_class

_made = pytest.StashKey[list[Harness]]()
_seed = pytest.StashKey[str]()


def _seed_of(config: pytest.Config) -> str:
    """Return the seed of the random histories: ``--hypothesis-seed``, or one drawn for this run."""
    given = config.getoption("--hypothesis-seed", None)
    return (
        str(given)
        if given is not None
        else config.stash.setdefault(_seed, str(random.randrange(2**32)))
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run each test that uses a store once per store."""
    if "backend_name" in metafunc.fixturenames:
        names = str(metafunc.config.getoption("--registry-backend")).split(",")
        metafunc.parametrize("backend_name", names, scope="session")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add the broken line of the contract, the last calls and the seed to a failure."""
    report = yield
    made = item.stash.get(_made, None)
    if report.failed and made is not None:
        text = getattr(item.obj, "__doc__", "") or ""  # type: ignore[attr-defined]
        report.sections.append(("line of the contract", " ".join(text.split())))
        report.sections += [("last calls to the store", str(h.history)) for h in made]
        report.sections += [("errors of other processes", h.said()) for h in made]
        report.sections.append(("seed", _seed_of(item.config)))
    return report


@pytest.fixture
def make_harness(backend_name: str, request: pytest.FixtureRequest) -> Callable[[Path], Harness]:
    """Return a function that sets up the store in a workspace; its caller closes the harness."""
    kind = harness_class(request.config.getoption("--registry-harness"))
    made: list[Harness] = request.node.stash.setdefault(_made, [])

    def make(workspace: Path) -> Harness:
        made[:] = [kind(backend_name, workspace)]  # a failure shows only the last one
        return made[0]

    return make


@pytest.fixture
def harness(
    make_harness: Callable[[Path], Harness],
    backend_name: str,
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> Iterator[Harness]:
    """A new workspace with the store under test; skips the test where a needed capability is not
    declared.
    """
    with make_harness(tmp_path / "workspace") as harness:
        for marker in request.node.iter_markers("needs"):
            missing = set(marker.args) - harness.info.capabilities
            if missing:
                pytest.skip(f"{backend_name} does not declare {', '.join(sorted(missing))}")
        yield harness


@pytest.fixture
def chance(request: pytest.FixtureRequest) -> Callable[[int], random.Random]:
    """A function from a number to a random generator; the same seed gives the same generators."""
    seed = _seed_of(request.config)
    return lambda number: random.Random(f"{seed} {number}")
