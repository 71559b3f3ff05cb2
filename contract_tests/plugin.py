"""The pytest plugin: the options, and one run of every test per store named."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from contract_tests.harness import Harness


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add ``--registry-backend``."""
    parser.getgroup("registry").addoption(
        "--registry-backend",
        default="memory",
        metavar="NAME[,NAME]",
        help="the stores to run the contract tests on, as REGISTRY_BACKEND names them",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Declare the markers."""
    config.addinivalue_line("markers", "needs(capability): runs where the store declares it")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run each test that uses ``harness`` once per store."""
    if "backend_name" in metafunc.fixturenames:
        names = str(metafunc.config.getoption("--registry-backend")).split(",")
        metafunc.parametrize("backend_name", names, scope="session")


@pytest.fixture
def harness(backend_name: str, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Harness]:
    """A workspace of its own, and the store named, opened as often as the test asks."""
    with Harness(backend_name, tmp_path / "workspace") as harness:
        for marker in request.node.iter_markers("needs"):
            missing = set(marker.args) - harness.info.capabilities
            if missing:
                pytest.skip(f"{backend_name} does not declare {', '.join(sorted(missing))}")
        yield harness
