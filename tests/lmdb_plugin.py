"""The LMDB example as an installed plugin, here and in the processes that a test starts."""

import os
import sys
from pathlib import Path

EXAMPLE = Path(__file__).parents[1] / "examples" / "registry-backend-lmdb"


def install(folder, monkeypatch):
    """Make the example's entry point known, as ``pip install`` does."""
    info = folder / "registry_backend_lmdb-0.1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: registry-backend-lmdb\nVersion: 0.1.0\n"
    )
    (info / "entry_points.txt").write_text("[registry_backend]\nlmdb = registry_backend_lmdb\n")
    places = [str(folder), str(EXAMPLE)]
    monkeypatch.setattr(sys, "path", [*sys.path, *places])
    known = [p for p in (os.environ.get("PYTHONPATH"),) if p]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([*known, *places]))
