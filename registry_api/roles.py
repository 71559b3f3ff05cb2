"""The role stamp: what a store may do in a move, kept in the store itself.

A store of a move is its *writer* (it accepts ``commit``), a *replica* (it accepts ``apply`` and
``replace``) or *fenced* (it accepts neither, and another store has taken over). It keeps the stamp
under the name ``ROLE`` (see ``Stamps``) and checks it in the transaction that writes. So a process
that opened the store around the gate, or from another host, is refused after a switch. A store
without a stamp accepts both.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import StrEnum
from functools import lru_cache
from typing import Any

import orjson

from registry_api.errors import BackendMismatch, CorruptDocument, RegistryError, Unavailable

__all__ = ["ROLE", "Role", "RoleStamp", "check_commit", "check_replication"]

ROLE = "role"  # the name of the stamp


class Role(StrEnum):
    """What a store may do in a move."""

    WRITER = "writer"
    REPLICA = "replica"
    FENCED = "fenced"


@dataclass(frozen=True, slots=True, kw_only=True)
class RoleStamp:
    """A store's role, and whose store it is.

    ``registry`` and ``move`` are ids, ``instance`` tells a registry from its copies, ``workspace``
    is the path of its workspace. ``epoch`` is that of the phase record. ``writer`` names the store
    that is the writer of record instead, without credentials; it is empty while a switch that
    fenced the store is not committed.
    """

    role: Role
    registry: str = ""
    instance: str = ""
    workspace: str = ""
    move: str = ""
    epoch: int = 0
    writer: str = ""

    def dump(self) -> str:
        """Return the text that a store keeps."""
        return orjson.dumps(asdict(self)).decode()

    @classmethod
    def load(cls, text: str | None) -> RoleStamp | None:
        """Return the stamp in a text, None without one; raises CorruptDocument."""
        return None if text is None else _loaded(text)


@lru_cache(maxsize=16)  # read in each transaction that writes
def _loaded(text: str) -> RoleStamp:
    try:
        data: dict[str, Any] = orjson.loads(text)
        known = {name: data[name] for name in RoleStamp.__slots__ if name in data}
        return RoleStamp(**known | {"role": Role(data["role"])})
    except (ValueError, KeyError, TypeError) as error:
        raise CorruptDocument(
            f"the store's role stamp cannot be read: {text[:80]!r}",
            next_step="registry-backend recover writes it again",
        ) from error


def check_commit(text: str | None) -> None:
    """Raise BackendMismatch or Unavailable unless a store with this stamp accepts ``commit``."""
    stamp = RoleStamp.load(text)
    if stamp is not None and stamp.role is not Role.WRITER:
        raise _refused(stamp)


def check_replication(text: str | None) -> None:
    """Raise BackendMismatch or Unavailable unless it accepts ``apply`` and ``replace``."""
    stamp = RoleStamp.load(text)
    if stamp is None or stamp.role is Role.REPLICA:
        return
    if stamp.role is Role.FENCED:
        raise _refused(stamp)
    raise BackendMismatch(
        f"the store is the writer of record of the registry in {stamp.workspace}: it replicates no "
        "other store",
        next_step="Name another store as the target",
    )


def _refused(stamp: RoleStamp) -> RegistryError:
    if not stamp.writer:
        return Unavailable(
            f"a switch of the registry in {stamp.workspace} is under way, which fenced the store",
            next_step="Try again; if that lasts, run registry-backend recover there",
        )
    what = "a replica" if stamp.role is Role.REPLICA else "fenced"
    return BackendMismatch(
        f"the store is {what}: the writer of record of the registry in {stamp.workspace} is "
        f"{stamp.writer}",
        next_step=f"Open that registry through its workspace, or open {stamp.writer}",
    )
