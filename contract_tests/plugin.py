"""The pytest plugin: only options and markers, since every pytest run of the environment loads it.

The fixtures are in ``conftest.py``, which only the contract tests load.
"""

from __future__ import annotations

from pathlib import Path

import pytest

_LAUNCHER = "--registry-launcher"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add ``--registry-backend`` and ``--registry-harness``."""
    group = parser.getgroup("registry")
    group.addoption(
        "--registry-backend",
        default="memory",
        metavar="NAME[,NAME]",
        help="stores to run the contract tests on, named as in REGISTRY_BACKEND",
    )
    group.addoption(
        "--registry-harness",
        default=None,
        metavar="MODULE:CLASS",
        help="class that sets up the stores; default: contract_tests.harness:Harness",
    )
    group.addoption(
        _LAUNCHER,
        default="",
        metavar="NAME[,NAME]",
        help="launchers to run contract_tests.launchers on; without it these tests are left out",
    )


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave out the tests of launchers unless one is named."""
    launchers = Path(__file__).parent / "launchers"
    return True if collection_path == launchers and not config.getoption(_LAUNCHER) else None


def pytest_configure(config: pytest.Config) -> None:
    """Declare the markers."""
    config.addinivalue_line("markers", "needs(capability): runs only if the store declares it")
