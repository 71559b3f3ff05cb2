"""Small disks for one test each: filled to the last block, freed again, made read-only."""

import subprocess
from contextlib import contextmanager

import pytest


class Disk:
    """A mounted tmpfs; a file next to the workspace fills it."""

    def __init__(self, root):
        self.root = root
        self.workspace = root / "workspace"
        self.workspace.mkdir()
        self._ballast = root / "ballast"

    def fill(self, *, spare=0):
        """Fill the disk, leaving this many blocks free."""
        with self._ballast.open("ab", buffering=0) as file:
            try:
                while file.write(bytes(4096)) == 4096:
                    pass
            except OSError:
                pass
            file.truncate(max(0, file.seek(0, 2) // 4096 - spare) * 4096)

    def free(self):
        """Free the blocks that ``fill`` took."""
        self._ballast.unlink()

    @contextmanager
    def read_only(self):
        """Mount the disk read-only for the block; no process may have a file open for writing."""
        _mount("-o", "remount,ro", self.root)
        try:
            yield
        finally:
            _mount("-o", "remount,rw", self.root)


def _mount(*args):
    return subprocess.run(["mount", *map(str, args)], check=True, capture_output=True)


@contextmanager
def mounted(root):
    """Give a disk of 32 MiB; skip the test where mounting is not allowed."""
    root.mkdir()
    try:
        _mount("-t", "tmpfs", "-o", "size=32m,mode=700", "none", root)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"a small disk cannot be mounted here (root is needed): {error}")
    try:
        yield Disk(root)
    finally:
        subprocess.run(["umount", "--lazy", str(root)], check=True)
