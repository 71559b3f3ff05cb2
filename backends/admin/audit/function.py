"""What an audit knows of the functions of a program, and what it finds in them."""

from __future__ import annotations

import ast
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from backends.admin.audit.sites import Access, Kind
from backends.admin.audit.values import Argument, Data, Opened, Origin, PathTo, Value

__all__ = ["Draft", "Edge", "Found", "Function", "Lock", "Names", "Project"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Names:
    """The names by which registries are known: files, and what reads, writes and finds them.

    ``paths``: parameters that hold the path of a registry if nothing is known of the callers.
    """

    files: tuple[str, ...] = ("AGENT_REGISTRY.json", "GLOBAL_REGISTRY.json")
    locked: tuple[str, ...] = ("LockedRegistryFile",)
    reads: tuple[str, ...] = ("read_registry_with_lock",)
    writes: tuple[str, ...] = ("write_registry_with_lock",)
    finds: tuple[str, ...] = ("find_task_workspace",)
    paths: tuple[str, ...] = ("registry_path", "global_reg_path", "global_registry_path")

    def file_of(self, text: str) -> frozenset[str]:
        """Return the registry file that a path or the end of one names."""
        return frozenset(n for n in self.files if text == n or text.endswith(f"/{n}"))


@dataclass(slots=True, eq=False)
class Function:
    """A function or the body of a module; ``returns`` is what is known of its result."""

    number: int
    name: str
    qualified: str
    file: str
    node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Module
    owner: str = ""  # the class of a method
    inside: str = ""  # the class whose ``self`` it may use
    outer: Function | None = None
    returns: Value = None
    env: dict[str, Value] = field(default_factory=dict)

    @property
    def is_static(self) -> bool:
        """Whether it is a static method."""
        return "staticmethod" in self.decorators

    @property
    def decorators(self) -> set[str]:
        """The last names of its decorators."""
        if isinstance(self.node, ast.Module | ast.ClassDef):
            return set()
        return {ast.unparse(d).rpartition(".")[2] for d in self.node.decorator_list}

    @property
    def params(self) -> list[str]:
        """The names of the parameters, in order."""
        if isinstance(self.node, ast.Module | ast.ClassDef):
            return []
        given = self.node.args
        return [a.arg for a in (*given.posonlyargs, *given.args, *given.kwonlyargs)]


class Draft(NamedTuple):
    """A site that is one only if its origin is a registry; ``needs``: how a caller passes it."""

    node: ast.expr
    kind: Kind
    access: Access
    via: str
    origin: Origin
    needs: type = PathTo
    touches: tuple[str, ...] = ()
    sure: bool = False  # the call says that it is a registry


class Edge(NamedTuple):
    """A value that is passed to a parameter."""

    to: Argument
    value: Value


class Project(Protocol):
    """What a scan asks about the rest of the program."""

    names: Names

    def candidates(self, name: str, base: ast.expr | None, caller: Function) -> list[Function]:
        """Return the functions that a call of a name, maybe of an object's, may reach."""

    def meant(self, name: str, function: Function) -> str:
        """Return the name that an import gave another one, else the name itself."""

    def known(self, name: str, function: Function) -> Value:
        """Return what a name outside the function may hold."""

    def attribute(self, name: str, function: Function) -> Value:
        """Return what ``self.name`` may hold."""

    def named(self, owner: str, name: str, function: Function) -> Value:
        """Return what ``owner.name`` may hold, of a class or a module."""


@dataclass(slots=True)
class Lock:
    """A use of a locked file: its last line, how often its body writes, and the keys it uses."""

    node: ast.expr
    origin: Origin
    via: str
    end: int
    writes: int = 0
    keys: dict[str, None] = field(default_factory=dict)


@dataclass(slots=True)
class Found:
    """What one pass over a function finds.

    ``locks`` by the line of their call; ``tested``: the folders whose registry was tested.
    """

    drafts: list[Draft] = field(default_factory=list)
    edges: list[Edge] = field(default_factory=list)
    attributes: dict[str, Value] = field(default_factory=dict)
    returns: Value = None
    locks: dict[int, Lock] = field(default_factory=dict)
    tested: dict[str, Origin] = field(default_factory=dict)

    def touch(self, node: ast.expr, keys: tuple[str, ...]) -> None:
        """Note the key of a registry that is used, for the locked files around the place."""
        for lock in self.locks.values():
            if keys and lock.node.lineno <= node.lineno <= lock.end:
                lock.keys[keys[0]] = None

    def change(self, node: ast.expr, data: Data, via: str) -> None:
        """Note a change of what was read of a registry."""
        self.touch(node, data.keys)
        touched = tuple(key for key in data.keys if key != "*")
        self.drafts.append(Draft(node, Kind.CHANGE, Access.CHANGE, via, data.origin, Data, touched))

    def hand_on(self, value: Value) -> None:
        """Note that a locked file's handle goes to another function, which may write it."""
        if isinstance(value, Opened) and (lock := self.locks.get(value.line)) is not None:
            lock.writes += 1

    def write(self, node: ast.expr, opened: Opened, via: str) -> None:
        """Note a write to an open file; one that is locked is a place already."""
        lock = self.locks.get(opened.line)
        if lock is not None:
            lock.writes += 1
        else:
            needs = Opened if isinstance(opened.origin, Argument) and not opened.line else PathTo
            self.drafts.append(Draft(node, Kind.DUMP, Access.WRITE, via, opened.origin, needs))
