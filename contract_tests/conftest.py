"""One run of every test per store; what a failure tells: the line, the calls, the seed."""

from __future__ import annotations

import random
from collections.abc import Callable, Generator, Iterator
from pathlib import Path

import pytest

from contract_tests.harness import Harness, harness_class

_made = pytest.StashKey[list[Harness]]()
_seed = pytest.StashKey[str]()


def _seed_of(config: pytest.Config) -> str:
    """Return what random histories begin with: ``--hypothesis-seed``, or one for this run."""
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
    """Add to a failure which line of the contract is broken, what was asked, and the seed."""
    report = yield
    made = item.stash.get(_made, None)
    if report.failed and made is not None:
        text = getattr(item.obj, "__doc__", "") or ""  # type: ignore[attr-defined]
        report.sections.append(("the line of the contract", " ".join(text.split())))
        report.sections += [("what was asked of the store last", str(h.history)) for h in made]
        report.sections.append(("seed", _seed_of(item.config)))
    return report


@pytest.fixture
def make_harness(backend_name: str, request: pytest.FixtureRequest) -> Callable[[Path], Harness]:
    """Set up the store in a workspace, as often as the test asks; who asks leaves it again."""
    kind = harness_class(request.config.getoption("--registry-harness"))
    made: list[Harness] = request.node.stash.setdefault(_made, [])

    def make(workspace: Path) -> Harness:
        made[:] = [kind(backend_name, workspace)]  # only the last one is of interest
        return made[0]

    return make


@pytest.fixture
def harness(
    make_harness: Callable[[Path], Harness],
    backend_name: str,
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> Iterator[Harness]:
    """A workspace of its own, and the store named, opened as often as the test asks."""
    with make_harness(tmp_path / "workspace") as harness:
        for marker in request.node.iter_markers("needs"):
            missing = set(marker.args) - harness.info.capabilities
            if missing:
                pytest.skip(f"{backend_name} does not declare {', '.join(sorted(missing))}")
        yield harness


@pytest.fixture
def chance(request: pytest.FixtureRequest) -> Callable[[int], random.Random]:
    """Randomness by number, the same again with the same seed."""
    seed = _seed_of(request.config)
    return lambda number: random.Random(f"{seed} {number}")
