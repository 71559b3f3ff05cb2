"""The store ``remotekv`` as an installed plugin, here and in the processes that a test starts."""

import os
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def install(folder):
    """Write the plugin's entry point into a folder; return the PYTHONPATH that makes it known."""
    info = folder / "remote_kv-0.1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: remote-kv\nVersion: 0.1.0\n")
    (info / "entry_points.txt").write_text(
        "[registry_backend]\nremotekv = tests.remote_kv.client\n"
    )
    known = [p for p in (os.environ.get("PYTHONPATH"),) if p]
    return os.pathsep.join([*known, str(folder), str(ROOT)])


if __name__ == "__main__":
    sys.stdout.write(install(Path(sys.argv[1])))
