"""Small disks of a test's own: filled to the last block, freed again, made read-only."""

import subprocess
from contextlib import contextmanager

import pytest


class Disk:
    """A mounted tmpfs; what fills it lies in a file beside the workspace."""

    def __init__(self, root):
        self.root = root
        self.workspace = root / "workspace"
        self.workspace.mkdir()
        self._ballast = root / "ballast"

    def fill(self, *, spare=0):
        """Fill the disk but for so many blocks."""
        with self._ballast.open("ab", buffering=0) as file:
            try:
                while file.write(bytes(4096)) == 4096:
                    pass
            except OSError:
                pass
            file.truncate(max(0, file.seek(0, 2) // 4096 - spare) * 4096)

    def free(self):
        """Free what was filled."""
        self._ballast.unlink()

    @contextmanager
    def read_only(self):
        """Be read-only meanwhile; nobody may have a file open for writing."""
        _mount("-o", "remount,ro", self.root)
        try:
            yield
        finally:
            _mount("-o", "remount,rw", self.root)


def _mount(*args):
    return subprocess.run(["mount", *map(str, args)], check=True, capture_output=True)


@contextmanager
def mounted(root):
    """Give a disk of 32 MiB; skips, counted, where mounting is not allowed."""
    root.mkdir()
    try:
        _mount("-t", "tmpfs", "-o", "size=32m,mode=700", "none", root)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"a small disk cannot be mounted here (root is needed): {error}")
    try:
        yield Disk(root)
    finally:
        subprocess.run(["umount", "--lazy", str(root)], check=True)
