"""Audit all source files of a program: follow registries from file to file, then list the places.

Each function is followed alone, with parameters that stand for whatever a caller passes. This is
repeated until it is known what the functions return. Then what the calls pass is carried to the
parameters: a place behind one is a site only if some call passes it a registry.
"""

from __future__ import annotations

import ast
import os
import re
import stat
from collections import defaultdict
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from backends.admin.audit.by_hand import why_by_hand
from backends.admin.audit.function import Draft, Edge, Function, Names
from backends.admin.audit.scan import Scan
from backends.admin.audit.sites import Audit, Site
from backends.admin.audit.values import SOME, Argument, Data, Opened, PathTo, Value

__all__ = ["audit"]

_ROUNDS = 5  # a value that is handed on through more functions is not followed further
_MOST = 12  # functions of one name that a call may reach
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

    A file that cannot be read or parsed is named, not followed. Links are not followed.
    """
    program = _Program(names)
    unreadable, count = dict[str, str](), 0
    for path in _sources(root, unreadable):
        name = path.name if root.is_file() else path.relative_to(root).as_posix()
        count += 1
        try:
            program.add(name, ast.parse(path.read_bytes(), filename=name))
        except SyntaxError as error:
            unreadable[name] = f"line {error.lineno or 1}: {error.msg}"
        except (ValueError, RecursionError, MemoryError, OSError) as error:
            unreadable[name] = str(error) or type(error).__name__
    sites = program.sites(unreadable)
    return Audit(root=str(root), files=count, sites=sites, unreadable=unreadable)


def _sources(root: Path, unreadable: dict[str, str]) -> Iterator[Path]:
    if root.is_file():
        yield root
        return

    def failed(error: OSError) -> None:
        unreadable[str(error.filename)] = error.strerror or str(error)

    for folder, folders, files in os.walk(root, onerror=failed):
        folders[:] = sorted(f for f in folders if f not in _SKIPPED and not f.startswith("."))
        for name in sorted(files):
            path = Path(folder, name)
            if name.endswith(".py") and not name.startswith("."):
                with suppress(OSError):
                    if stat.S_ISREG(path.lstat().st_mode):
                        yield path


class _Program:
    """The functions of a program, and what is known of them."""

    def __init__(self, names: Names) -> None:
        self.names = names
        self._functions: list[Function] = []
        self._modules: dict[str, Function] = {}
        self._by_name: dict[str, list[Function]] = defaultdict(list)
        self._methods: dict[tuple[str, str], list[Function]] = defaultdict(list)
        self._bases: dict[str, list[str]] = {}
        self._attributes: dict[str, dict[str, Value]] = defaultdict(dict)
        self._globals: dict[str, list[Value]] = {}
        self._imported: dict[str, dict[str, str]] = defaultdict(dict)

    def add(self, file: str, tree: ast.Module) -> None:
        """Add the functions of a module."""
        module = self._new("<module>", file, qualified="<module>", node=tree)
        self._modules[file] = module
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom | ast.Import):
                for alias in node.names:
                    self._imported[file][alias.asname or alias.name] = alias.name
        self._collect(tree.body, module, owner="", inside="", prefix="")

    def _new(self, name: str, file: str, **more: Any) -> Function:
        found = Function(number=len(self._functions), name=name, file=file, **more)
        self._functions.append(found)
        return found

    def _collect(
        self, body: list[ast.stmt], outer: Function, *, owner: str, inside: str, prefix: str
    ) -> None:
        for node in body:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                name = f"{prefix}{node.name}"
                found = self._new(
                    node.name,
                    outer.file,
                    qualified=name,
                    node=node,
                    owner=owner,
                    inside=inside,
                    outer=outer,
                )
                self._by_name[node.name].append(found)
                self._methods[owner, node.name].append(found)
                self._collect(node.body, found, owner="", inside=inside, prefix=f"{name}.")
            elif isinstance(node, ast.ClassDef):
                name = f"{prefix}{node.name}"
                self._bases[node.name] = [ast.unparse(b).rpartition(".")[2] for b in node.bases]
                self._new(
                    f"class {node.name}",
                    outer.file,
                    qualified=name,
                    node=node,
                    inside=node.name,
                    outer=outer,
                )
                self._collect(
                    node.body, outer, owner=node.name, inside=node.name, prefix=f"{name}."
                )
            else:
                inner = list(_inner(node))
                if inner:
                    self._collect(inner, outer, owner=owner, inside=inside, prefix=prefix)

    # -- what a scan asks --------------------------------------------------------------------

    def candidates(self, name: str, base: ast.expr | None, caller: Function) -> list[Function]:
        """Return the functions that a call may reach: of its class, its module, or of this name.

        A call of a class reaches its ``__init__``.
        """
        made = self._methods.get((name, "__init__"))
        if made:
            return made
        found = self._by_name.get(name, [])
        on_self = isinstance(base, ast.Name) and base.id in {"self", "cls"}
        if on_self:
            same = [f for f in found if f.owner == caller.inside and f.file == caller.file]
            if same:
                return same
        if base is None:
            near = [f for f in found if f.file == caller.file and not f.owner]
            if near:
                return near
            found = [f for f in found if not f.owner]
        elif name in _COMMON and not on_self:
            return []
        return found if len(found) <= _MOST else []

    def meant(self, name: str, function: Function) -> str:
        """Return what an import with another name means; else the name."""
        return self._imported[function.file].get(name, name).rpartition(".")[2]

    def known(self, name: str, function: Function) -> Value:
        """Return what a name of an outer function, of the module or of another module holds."""
        outer = function.outer
        while outer is not None:
            if name in outer.env:
                return outer.env[name]
            outer = outer.outer
        imported = self._imported[function.file]
        if name not in imported and name not in imported.values() and "*" not in imported:
            return None
        values = self._globals.get(self.meant(name, function), [])
        return values[0] if len(values) == 1 else None

    def attribute(self, name: str, function: Function) -> Value:
        """Return what ``self.name`` holds in the methods of a class, or of a base of it."""
        return self._of_class(function.inside, name, set())

    def named(self, owner: str, name: str, function: Function) -> Value:
        """Return what ``owner.name`` holds, of a class or of a module that is imported."""
        meant = self.meant(owner, function)
        if meant in self._bases:
            return self._of_class(meant, name, set())
        if owner in self._imported[function.file]:
            values = self._globals.get(name, [])
            return values[0] if len(values) == 1 else None
        return None

    def _of_class(self, owner: str, name: str, seen: set[str]) -> Value:
        if not owner or owner in seen:
            return None
        seen.add(owner)
        found = self._attributes[owner].get(name)
        for method in self._methods.get((owner, name), ()):
            if found is None and method.decorators & {"property", "cached_property"}:
                found = method.returns
        for base in self._bases.get(owner, ()):
            found = found if found is not None else self._of_class(base, name, seen)
        return found

    # -- following ---------------------------------------------------------------------------

    def sites(self, unreadable: dict[str, str]) -> tuple[Site, ...]:
        """Follow everything; return the sites in the order of files and lines.

        A function that cannot be followed makes its file unreadable.
        """
        scans: list[Scan] = []
        for _ in range(_ROUNDS):
            scans = []
            for function in self._functions:
                try:
                    scans.append(Scan(function, self).run())
                except RecursionError:
                    unreadable[function.file] = f"{function.qualified} is nested too deeply"
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
            known, held = self._attributes[function.inside], dict(scan.found.attributes)
            if isinstance(function.node, ast.ClassDef):
                held |= {name: v for name, v in function.env.items() if v is not None}
            for name, value in held.items():
                if function.inside and known.get(name) != value:
                    known[name], changed = value, True
        globals_: dict[str, list[Value]] = defaultdict(list)
        for module in self._modules.values():
            for name, value in module.env.items():
                if value is not None:
                    globals_[name].append(value)
        if globals_ != self._globals:
            self._globals, changed = dict(globals_), True
        return changed


def _inner(node: ast.stmt) -> Iterator[ast.stmt]:
    """Yield the statements in a statement, those of its handlers and cases too."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.stmt):
            yield child
        elif isinstance(child, ast.ExceptHandler | ast.match_case):
            yield from child.body


Passed = dict[tuple[Argument, type], set[str]]


def _carried(edges: list[Edge]) -> Passed:
    """Return the names of the registries that reach each parameter, as a path and as data."""
    passed: Passed = defaultdict(set)
    onward: dict[tuple[Argument, type], set[tuple[Argument, type]]] = defaultdict(set)
    for edge in edges:
        value = edge.value
        for kind in (PathTo, Opened, Data):
            if isinstance(value, Argument):
                onward[value, kind].add((edge.to, kind))
            elif isinstance(value, kind):
                if isinstance(value.origin, Argument):
                    # A part of what was passed as data is data; what was read of a path needs it.
                    source: tuple[Argument, type] = (value.origin, Data)
                    onward[source].add((edge.to, kind))
                    if not (isinstance(value, Data) and value.keys):
                        onward[value.origin, PathTo].add((edge.to, kind))
                        onward[value.origin, Opened].add((edge.to, kind))
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
    kinds = (PathTo, Opened, Data) if draft.needs is Data else (draft.needs,)
    return frozenset(name for kind in kinds for name in passed.get((origin, kind), ()))


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
