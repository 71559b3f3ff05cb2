"""Audit all source files of a program: follow registries from file to file, then list the places.

Each function is followed alone, with parameters that stand for whatever a caller passes. This is
repeated until it is known what the functions return. Then what the calls pass is carried to the
parameters: a place behind one is a site only if some call passes it a registry.
"""

from __future__ import annotations

import ast
import os
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from backends.admin.audit.by_hand import why_by_hand
from backends.admin.audit.calls import called
from backends.admin.audit.function import Draft, Edge, Function, Names
from backends.admin.audit.scan import Scan
from backends.admin.audit.sites import Audit, Site
from backends.admin.audit.values import SOME, Argument, Data, PathTo, Value

__all__ = ["audit"]

_ROUNDS = 5  # a value that is handed on through more functions is not followed further
_MOST = 4  # functions of one name that a call may reach
_SKIPPED = {"node_modules", "site-packages", "__pycache__", "venv", "build", "dist"}
# Methods of other objects have these names too often.
_COMMON = frozenset(
    {
        "get",
        "open",
        "read",
        "write",
        "load",
        "loads",
        "dump",
        "dumps",
        "close",
        "append",
        "update",
        "pop",
        "join",
        "items",
        "keys",
        "values",
        "format",
        "run",
        "start",
        "stop",
        "send",
        "call",
        "main",
        "info",
        "error",
        "debug",
        "warning",
        "exists",
        "copy",
        "replace",
        "strip",
        "split",
    }
)
_TEST = re.compile(r"(^|/)(tests?/|test_[^/]*$|conftest\.py$)|_test\.py$")


def audit(root: Path, names: Names) -> Audit:
    """Return every place in the Python files below a folder (or in one file) that uses a registry.

    A file that cannot be parsed is named, not followed. Links are not followed.
    """
    program = _Program(names)
    unreadable, count = dict[str, str](), 0
    for path in _sources(root):
        name = path.name if root.is_file() else path.relative_to(root).as_posix()
        count += 1
        try:
            program.add(name, ast.parse(path.read_bytes(), filename=name))
        except SyntaxError as error:
            unreadable[name] = f"line {error.lineno}: {error.msg}"
        except (ValueError, RecursionError, OSError) as error:
            unreadable[name] = str(error)
    return Audit(root=str(root), files=count, sites=program.sites(), unreadable=unreadable)


def _sources(root: Path) -> Iterator[Path]:
    if root.is_file():
        yield root
        return
    for folder, folders, files in os.walk(root):
        folders[:] = sorted(f for f in folders if f not in _SKIPPED and not f.startswith("."))
        yield from (Path(folder, name) for name in sorted(files) if name.endswith(".py"))


class _Program:
    """The functions of a program, and what is known of them."""

    def __init__(self, names: Names) -> None:
        self.names = names
        self._functions: list[Function] = []
        self._modules: dict[str, Function] = {}
        self._by_name: dict[str, list[Function]] = defaultdict(list)
        self._attributes: dict[tuple[str, str], dict[str, Value]] = defaultdict(dict)
        self._globals: dict[str, list[Value]] = {}

    def add(self, file: str, tree: ast.Module) -> None:
        """Add the functions of a module."""
        module = self._new("<module>", file, qualified="<module>", node=tree)
        self._modules[file] = module
        self._collect(tree.body, module, "", "")

    def _new(self, name: str, file: str, **more: Any) -> Function:
        found = Function(number=len(self._functions), name=name, file=file, **more)
        self._functions.append(found)
        return found

    def _collect(self, body: list[ast.stmt], outer: Function, owner: str, prefix: str) -> None:
        for node in body:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                name = f"{prefix}{node.name}"
                more = {"qualified": name, "node": node, "owner": owner, "outer": outer}
                found = self._new(node.name, outer.file, **more)
                self._by_name[node.name].append(found)
                self._collect(node.body, found, "", f"{name}.")
            elif isinstance(node, ast.ClassDef):
                self._collect(node.body, outer, node.name, f"{prefix}{node.name}.")
            else:
                inner = [s for s in ast.iter_child_nodes(node) if isinstance(s, ast.stmt)]
                handlers = getattr(node, "handlers", [])
                inner += [s for handler in handlers for s in handler.body]
                if inner:
                    self._collect(inner, outer, owner, prefix)

    # -- what a scan asks --------------------------------------------------------------------

    def candidates(self, call: ast.Call, caller: Function) -> list[Function]:
        """Return the functions that a call may reach: of its class, its module, or of this name."""
        name, base = called(call)
        found = self._by_name.get(name, ())
        if not found:
            return []
        on_self = isinstance(base, ast.Name) and base.id == "self"
        if on_self:
            same = [f for f in found if f.owner == caller.owner and f.file == caller.file]
            if same:
                return same
        if base is None:
            near = [f for f in found if f.file == caller.file and not f.owner]
            if near:
                return near
            found = [f for f in found if not f.owner]
        elif name in _COMMON and not on_self:
            return []
        return list(found) if len(found) <= _MOST else []

    def known(self, name: str, function: Function) -> Value:
        """Return what a name of an outer function, of the module or of another module holds."""
        outer = function.outer
        while outer is not None:
            if name in outer.env:
                return outer.env[name]
            outer = outer.outer
        values = self._globals.get(name, [])
        return values[0] if len(values) == 1 else None

    def attribute(self, name: str, function: Function) -> Value:
        """Return what ``self.name`` holds in the methods of a class."""
        return self._attributes[function.file, function.owner].get(name)

    # -- following ---------------------------------------------------------------------------

    def sites(self) -> tuple[Site, ...]:
        """Follow everything; return the sites in the order of files and lines."""
        scans: list[Scan] = []
        for _ in range(_ROUNDS):
            scans = [Scan(function, self).run() for function in self._functions]
            if not self._learn(scans):
                break
        edges = [edge for scan in scans for edge in scan.found.edges]
        passed = _carried([*edges, *self._by_definition({edge.to for edge in edges})])
        found = {}
        for scan in scans:
            for draft in scan.found.drafts:
                names = _reached(draft, passed)
                if names or draft.sure:
                    site = _site(scan, draft, names)
                    found[site.file, site.line, site.column, site.kind] = site
        return tuple(sorted(found.values()))

    def _by_definition(self, given: set[Argument]) -> Iterator[Edge]:
        """Yield that what is known by its name gets registries.

        ``given``: the parameters to which some call passes something.
        """
        names = self.names
        for function in self._functions:
            for index, name in enumerate(function.params):
                to = Argument(function.number, index)
                if name in names.paths and to not in given:
                    yield Edge(to, PathTo(SOME))
        for function in self._functions:
            helper = function.name in {*names.reads, *names.writes} and not function.owner
            lock = function.name == "__init__" and function.owner in names.locked
            if helper or lock:
                yield Edge(Argument(function.number, int(lock)), PathTo(SOME))

    def _learn(self, scans: list[Scan]) -> bool:
        """Take over what the functions return and what attributes hold; False: nothing is new."""
        changed = False
        for scan in scans:
            function = scan.function
            if scan.found.returns != function.returns:
                function.returns, changed = scan.found.returns, True
            known = self._attributes[function.file, function.owner]
            for name, value in scan.found.attributes.items():
                if known.get(name) != value:
                    known[name], changed = value, True
        globals_: dict[str, list[Value]] = defaultdict(list)
        for module in self._modules.values():
            for name, value in module.env.items():
                if value is not None:
                    globals_[name].append(value)
        if globals_ != self._globals:
            self._globals, changed = dict(globals_), True
        return changed


Passed = dict[tuple[Argument, type], set[str]]


def _carried(edges: list[Edge]) -> Passed:
    """Return the names of the registries that reach each parameter, as a path and as data."""
    passed: Passed = defaultdict(set)
    onward: dict[tuple[Argument, type], set[tuple[Argument, type]]] = defaultdict(set)
    for edge in edges:
        value = edge.value
        for kind in (PathTo, Data):
            if isinstance(value, Argument):
                onward[value, kind].add((edge.to, kind))
            elif isinstance(value, kind):
                if isinstance(value.origin, Argument):
                    # A part of what was passed as data is data; what was read of a path needs it.
                    source: tuple[Argument, type] = (value.origin, Data)
                    onward[source].add((edge.to, kind))
                    if not (isinstance(value, Data) and value.keys):
                        onward[value.origin, PathTo].add((edge.to, kind))
                else:
                    passed[edge.to, kind] |= value.origin
    waiting = list(passed)
    while waiting:
        source = waiting.pop()
        for target in onward.get(source, ()):
            if not passed[source] <= passed[target]:
                passed[target] |= passed[source]
                waiting.append(target)
    return passed


def _reached(draft: Draft, passed: Passed) -> frozenset[str]:
    """Return the names of the registries of a draft; empty if none reaches it."""
    origin = draft.origin
    if not isinstance(origin, Argument):
        return origin
    found = set(passed.get((origin, PathTo), ()))
    if draft.needs is Data:
        found |= passed.get((origin, Data), set())
    return frozenset(found)


def _site(scan: Scan, draft: Draft, names: frozenset[str]) -> Site:
    function, node = scan.function, draft.node
    return Site(
        file=function.file,
        line=node.lineno,
        column=node.col_offset,
        function=function.qualified,
        kind=draft.kind,
        access=draft.access,
        via=draft.via,
        registries=tuple(sorted(names - {""})),
        touches=draft.touches,
        by_hand=why_by_hand(scan, draft),
        is_test=bool(_TEST.search(function.file)),
    )
