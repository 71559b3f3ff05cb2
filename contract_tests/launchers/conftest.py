"""Run every test once per launcher, and end what a failed test leaves."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from contract_tests.launchers.launching import launcher_called
from registry_api.plugins import Launcher


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run each test that uses a launcher once per launcher."""
    if "launcher_name" in metafunc.fixturenames:
        names = str(metafunc.config.getoption("--registry-launcher")).split(",")
        metafunc.parametrize("launcher_name", [name for name in names if name], scope="session")


@pytest.fixture
def launcher(launcher_name: str, tmp_path: Path) -> Iterator[Launcher]:
    """A launcher, whose agents in the test's folder are killed at the end."""
    made = launcher_called(launcher_name)
    if launcher_name == "tmux" and shutil.which("tmux") is None:
        pytest.skip("tmux is not installed")
    yield made
    made.stop([found.identity for found in made.running(tmp_path)], grace=0.0)
