"""The pytest plugin: only options and markers, since every pytest of the environment loads it.

The rest is in ``conftest.py``, for the contract tests alone.
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
        help="the stores to run the contract tests on, as REGISTRY_BACKEND names them",
    )
    group.addoption(
        "--registry-harness",
        default=None,
        metavar="MODULE:CLASS",
        help="how they are set up; default: contract_tests.harness:Harness",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Declare the markers."""
    config.addinivalue_line("markers", "needs(capability): runs where the store declares it")
