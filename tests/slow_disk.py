"""A disk with slow syncs, for programs that a test starts: built from slow_sync.c."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest


def slow_syncs(folder, milliseconds):
    """Return the environment in which each sync takes this much longer; skip without a compiler."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler: slow_sync.c cannot be built")
    library, source = folder / "slow_sync.so", Path(__file__).with_name("slow_sync.c")
    command = [compiler, "-shared", "-fPIC", "-o", library, source, "-ldl"]
    subprocess.run(command, check=True, capture_output=True)
    return {**os.environ, "LD_PRELOAD": str(library), "SLOW_SYNC_MS": str(milliseconds)}
