"""Run a program and kill it, or make a call fail, at its n-th system call of some kind (strace)."""

import shutil
import subprocess
import sys

import pytest

WRITES = "write,pwrite64,fsync,ftruncate,truncate,fallocate,rename,mkdir,unlink,flock"


def need():
    """Skip the test where strace is missing or is not allowed to trace."""
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed: tests/packages.sh installs it where it can")
    if subprocess.run(["strace", "-o", "/dev/null", "true"], check=False).returncode:
        pytest.skip("strace may not trace here")


def run(code, *args, inject, calls=WRITES, path=None):
    """Run Python code under fault injection; return the finished process."""
    only = ["-P", str(path)] if path else []
    command = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", f"trace={calls}", *only]
    command += ["-e", f"inject={calls}:{inject}", sys.executable, "-c", code, *map(str, args)]
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
