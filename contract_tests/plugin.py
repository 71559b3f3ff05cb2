"""The pytest plugin: only options and markers, since every pytest run of the environment loads it.

The fixtures are in ``conftest.py``, which only the contract tests load.
"""

from __future__ import annotations

import pytest


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


def pytest_configure(config: pytest.Config) -> None:
    """Declare the markers."""
    config.addinivalue_line("markers", "needs(capability): runs only if the store declares it")
