"""What an audit finds: places in source files where a registry is read, written or changed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

__all__ = ["Access", "Audit", "Kind", "Site"]


class Kind(StrEnum):
    """How a place uses a registry."""

    LOCKED_FILE = "locked file"
    LOCKED_READ = "locked read"
    LOCKED_WRITE = "locked write"
    HELPER = "helper"
    LOAD = "load"
    DUMP = "dump"
    PROBE = "probe"
    LOOK_UP = "look-up"
    CHANGE = "change"
    NAME = "name"


class Access(StrEnum):
    """What a place does to the file."""

    READ = "read"
    WRITE = "write"
    CHANGE = "change"  # of what was read, in memory; some other place writes it
    NONE = "none"


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Site:
    """A place: file (relative to the folder that was audited), line from 1, column from 0.

    ``via``: the expression that gives the path or the registry. ``registries``: the names of the
    files, empty if they are not known. ``touches``: the keys of the registry that the place uses.
    ``by_hand``: why it cannot be rewritten by rule; empty if it can.
    """

    file: str
    line: int
    column: int
    function: str
    kind: Kind
    access: Access
    via: str
    registries: tuple[str, ...] = ()
    touches: tuple[str, ...] = ()
    by_hand: str = ""
    is_test: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Return the site as a JSON object."""
        found = asdict(self)
        return found | {"registries": list(self.registries), "touches": list(self.touches)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Audit:
    """The result of an audit; ``unreadable``: files that could not be parsed, with the reason."""

    root: str
    files: int
    sites: tuple[Site, ...]
    unreadable: Mapping[str, str] = field(default_factory=dict)

    def count(self, *, tests: bool) -> Counter[Kind]:
        """Return the number of sites by kind, in tests or in the other files."""
        return Counter(site.kind for site in self.sites if site.is_test is tests)

    def accesses(self, access: Access) -> list[Site]:
        """Return the sites outside tests with an access."""
        return [s for s in self.sites if s.access is access and not s.is_test]

    def to_dict(self) -> dict[str, Any]:
        """Return the result as a JSON object."""
        of = [site for site in self.sites if not site.is_test]
        return {
            "root": self.root,
            "files": self.files,
            "summary": {
                "files_with_sites": len({site.file for site in of}),
                "writes": len(self.accesses(Access.WRITE)),
                "reads": len(self.accesses(Access.READ)),
                "changes": len(self.accesses(Access.CHANGE)),
                "by_rule": sum(not site.by_hand for site in of if site.access is not Access.NONE),
                "kinds": dict(self.count(tests=False).items()),
                "kinds_in_tests": dict(self.count(tests=True).items()),
            },
            "unreadable": dict(self.unreadable),
            "sites": [site.to_dict() for site in self.sites],
        }
