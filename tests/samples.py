"""The real registries, where they are available: copied before use, never changed in place."""

import json
import os
import shutil
from pathlib import Path

import pytest

SAMPLES = Path(
    os.environ.get("LEGACY_SAMPLES", Path(__file__).parents[2] / "shared" / "legacy_samples")
)
NAMES = ("recorded-2025-10", "server-2026-01")


def copy_of(name, tmp_path):
    """Return a copy of a sample workspace; skip the test where the samples are missing."""
    if not (SAMPLES / name).is_dir():
        pytest.skip(f"no sample registries: set LEGACY_SAMPLES to the folder that holds {name}")
    target = tmp_path / name
    shutil.copytree(SAMPLES / name, target)
    for path in [target, *target.rglob("*")]:
        path.chmod(0o755 if path.is_dir() else 0o644)
    return target


def keeps_entries(before, after):
    """Return whether a list of all tasks still has every key and entry, in the same order."""
    old, new = json.loads(before), json.loads(after)
    return list(old) == list(new)[: len(old)] and all(
        list(old[name]) == list(new[name])[: len(old[name])] for name in ("tasks", "agents")
    )
