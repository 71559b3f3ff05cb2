"""Follow registries through one function of an audited program.

Values are followed by name, in the order of the text: a name keeps what it may hold when a branch
gives it something else. Nothing is executed.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable
from dataclasses import replace

from backends.admin.audit.calls import short
from backends.admin.audit.function import Draft, Edge, Found, Function, Lock, Project
from backends.admin.audit.scan_calls import Calls, key_of
from backends.admin.audit.sites import Access, Kind
from backends.admin.audit.values import (
    Argument,
    Data,
    Folder,
    Locked,
    Opened,
    PathTo,
    Value,
    as_data,
    element,
)

__all__ = ["Scan"]


class Scan:
    """One pass over one function."""

    def __init__(self, function: Function, project: Project) -> None:
        self.function = function
        self.found = Found()
        self.env: dict[str, Value] = {
            name: Argument(function.number, n) for n, name in enumerate(function.params)
        }
        self._project = project
        self._names = project.names
        self._locals = _bound(function.node)
        self._calls = Calls(self.found, function, project, value=self._value, bind=self._bind)
        self._depth = 0

    def run(self) -> Scan:
        """Follow the body; returns itself."""
        self._defaults()
        self._block(self.function.node.body)
        for lock in self.found.locks.values():
            access = Access.WRITE if lock.writes else Access.READ
            self.found.drafts.append(
                Draft(
                    lock.node,
                    Kind.LOCKED_FILE,
                    access,
                    lock.via,
                    lock.origin,
                    PathTo,
                    tuple(lock.keys),
                    sure=True,
                )
            )
        self.function.env = self.env
        return self

    def writes_of(self, node: ast.expr) -> int:
        """Return how often the body of a locked file writes it."""
        return next((k.writes for k in self.found.locks.values() if k.node is node), 0)

    def _defaults(self) -> None:
        """A parameter may get its default."""
        node = self.function.node
        if isinstance(node, ast.Module | ast.ClassDef):
            return
        given = [*node.args.posonlyargs, *node.args.args]
        pairs: list[tuple[ast.arg, ast.expr | None]] = [
            *zip(given[::-1], node.args.defaults[::-1], strict=False)
        ]
        pairs += zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True)
        for param, default in pairs:
            if default is not None and (value := self._value(default)) is not None:
                to = Argument(self.function.number, self.function.params.index(param.arg))
                self.found.edges.append(Edge(to, value))

    # -- statements --------------------------------------------------------------------------

    def _block(self, body: Iterable[ast.stmt]) -> None:
        for statement in body:
            self._statement(statement)

    def _statement(self, node: ast.stmt) -> None:  # noqa: PLR0912  (a case a kind of node)
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                return  # functions of their own
            case ast.Assign():
                value = self._value(node.value)
                for target in node.targets:
                    self._bind(target, value)
            case ast.AnnAssign() if node.value is not None:
                self._bind(node.target, self._value(node.value))
            case ast.AugAssign():
                value = self._value(node.value)
                self._bind(node.target, value if isinstance(value, PathTo) else None)
            case ast.Delete():
                for target in node.targets:
                    self._bind(target, None)
            case ast.With() | ast.AsyncWith():
                self._with(node)
            case ast.For() | ast.AsyncFor():
                self._bind(node.target, element(self._value(node.iter)))
                self._inner(node.body, node.orelse)
            case ast.Return() if node.value is not None:
                self._return(node.value)
            case ast.If() | ast.While():
                self._chain(node)
            case ast.Match():
                self._value(node.subject)
                self._inner(*(case.body for case in node.cases))
            case ast.ImportFrom():
                for alias in node.names:
                    found = self._project.known(alias.name, self.function)
                    if found is not None:
                        self.env[alias.asname or alias.name] = found
            case ast.Try() | ast.TryStar():
                handlers = (h.body for h in node.handlers)
                self._inner(node.body, *handlers, node.orelse, node.finalbody)
            case _:
                for child in ast.iter_child_nodes(node):
                    if isinstance(child, ast.expr):
                        self._value(child)
                    elif isinstance(child, ast.stmt):
                        self._inner([child])

    def _chain(self, node: ast.If | ast.While) -> None:
        """Follow an ``if`` with all its ``elif``: a program may have hundreds."""
        while True:
            self._value(node.test)
            self._inner(node.body)
            rest = node.orelse
            if len(rest) != 1 or not isinstance(rest[0], ast.If):
                self._inner(rest)
                return
            node = rest[0]

    def _inner(self, *bodies: Iterable[ast.stmt]) -> None:
        self._depth += 1
        for body in bodies:
            self._block(body)
        self._depth -= 1

    def _with(self, node: ast.With | ast.AsyncWith) -> None:
        for item in node.items:
            value = self._value(item.context_expr)
            if isinstance(value, Locked):
                lock = self.found.locks.get(value.line)
                if lock is None:  # it was made elsewhere
                    via = short(item.context_expr)
                    lock = Lock(item.context_expr, value.origin, via, node.lineno)
                    self.found.locks[value.line] = lock
                lock.end = node.end_lineno or node.lineno
                target = item.optional_vars
                if isinstance(target, ast.Tuple) and len(target.elts) == 2:
                    self._bind(target.elts[0], Data(value.origin))
                    self._bind(target.elts[1], Opened(value.origin, value.line))
                elif target is not None:  # an object that may be read and written
                    lock.writes += 1
                    self._bind(target, Data(value.origin))
            elif item.optional_vars is not None:
                self._bind(item.optional_vars, value)
        self._block(node.body)

    def _return(self, node: ast.expr) -> None:
        value = self._value(node)
        if value is None and (tested := self.found.tested.get(ast.unparse(node))) is not None:
            value = Folder(tested)
        self.found.returns = value if self.found.returns is None else self.found.returns

    def _bind(self, target: ast.expr, value: Value) -> None:
        match target:
            case ast.Name():
                if value is not None or not self._depth:
                    self.env[target.id] = value
            case ast.Tuple() | ast.List():
                for n, part in enumerate(target.elts):
                    last = n == len(target.elts) - 1
                    self._bind(part, value if last and isinstance(value, Data) else None)
            case ast.Starred():
                self._bind(target.value, value)
            case ast.Attribute(value=ast.Name(id="self" | "cls")):
                if value is not None:
                    self.found.attributes[target.attr] = value
            case ast.Subscript():
                base = as_data(self._value(target.value))
                self._value(target.slice)
                if base is not None:
                    changed = replace(base, keys=(*base.keys, key_of(target.slice)))
                    self.found.change(target, changed, short(target.value))

    # -- expressions -------------------------------------------------------------------------

    def _value(self, node: ast.expr) -> Value:  # noqa: PLR0912  (a case a kind of node)
        match node:
            case ast.Constant(value=str() as text):
                found = self._names.file_of(text)
                return PathTo(found) if found else None
            case ast.JoinedStr():
                return self._formatted(node)
            case ast.Name():
                if node.id in self.env:
                    return self.env[node.id]
                if node.id in self._locals:
                    return None
                return self._project.known(node.id, self.function)
            case ast.Attribute(value=ast.Name(id="self" | "cls")):
                held = self.found.attributes.get(node.attr)
                return held or self._project.attribute(node.attr, self.function)
            case ast.Attribute(value=ast.Name(id=owner)) if owner not in self.env:
                return self._project.named(owner, node.attr, self.function)
            case ast.BinOp():
                return self._joined(node)
            case ast.Subscript():
                held = self._value(node.value)
                self._value(node.slice)
                if isinstance(held, PathTo):
                    return held  # of several paths
                base = as_data(held)
                if base is None:
                    return None
                keys = (*base.keys, key_of(node.slice))
                self.found.touch(node, keys)
                return replace(base, keys=keys)
            case ast.Call():
                return self._calls.value(node)
            case ast.IfExp():
                self._value(node.test)
                return self._first(node.body, node.orelse)
            case ast.BoolOp():
                return self._first(*node.values)
            case ast.NamedExpr():
                value = self._value(node.value)
                self._bind(node.target, value)
                return value
            case ast.Await() | ast.Starred():
                return self._value(node.value)
            case ast.ListComp() | ast.SetComp() | ast.GeneratorExp():
                self._generators(node.generators)
                value = self._value(node.elt)
                return value if isinstance(value, Data) else None
            case ast.DictComp():
                self._generators(node.generators)
                self._first(node.key, node.value)
                return None
            case ast.Compare():
                return self._compared(node)
            case ast.Dict():
                values = [self._value(v) for v in (*node.keys, *node.values) if v is not None]
                return next((v for v in values if isinstance(v, PathTo)), None)
            case ast.Lambda():
                self._value(node.body)
                return None
            case ast.List() | ast.Tuple() | ast.Set():
                return self._display(node)
        self._first(*(c for c in ast.iter_child_nodes(node) if isinstance(c, ast.expr)))
        return None

    def _first(self, *nodes: ast.expr) -> Value:
        """Evaluate all; return the first that is a registry's."""
        values = [self._value(node) for node in nodes]
        return next((value for value in values if value is not None), None)

    def _display(self, node: ast.List | ast.Tuple | ast.Set) -> Value:
        """Evaluate a list; one of paths is followed as if it were each of them."""
        found = [(part, self._value(part)) for part in node.elts]
        for part, value in found:
            if isinstance(part, ast.Constant) and part.value in self._names.files:
                assert isinstance(value, PathTo)
                self.found.drafts.append(
                    Draft(part, Kind.NAME, Access.NONE, short(part), value.origin)
                )
        return next((value for _, value in found if isinstance(value, PathTo)), None)

    def _formatted(self, node: ast.JoinedStr) -> Value:
        values = [self._value(p.value) for p in node.values if isinstance(p, ast.FormattedValue)]
        last = node.values[-1] if node.values else None
        if isinstance(last, ast.Constant) and isinstance(last.value, str):
            found = self._names.file_of(last.value)
            first = node.values[0]
            lone = len(node.values) == 2 and isinstance(first, ast.FormattedValue)
            folder = ast.unparse(first.value) if lone else ""  # type: ignore[attr-defined]
            return PathTo(found, folder) if found else None
        return values[-1] if values and isinstance(values[-1], PathTo) else None

    def _joined(self, node: ast.BinOp) -> Value:
        left_most = node.left
        while isinstance(left_most, ast.BinOp):  # a program may join hundreds of texts
            self._value(left_most.right)
            left_most = left_most.left
        left, right = self._value(left_most), self._value(node.right)
        if isinstance(node.op, ast.Mod):
            return left if isinstance(left, PathTo) else None
        if isinstance(right, PathTo) and isinstance(node.op, ast.Add | ast.Div):
            return replace(right, folder=ast.unparse(node.left))
        return None

    def _compared(self, node: ast.Compare) -> Value:
        values = [self._value(part) for part in (node.left, *node.comparators)]
        for part, value in zip((node.left, *node.comparators), values, strict=True):
            if isinstance(part, ast.Constant) and isinstance(value, PathTo):
                self.found.drafts.append(
                    Draft(node, Kind.NAME, Access.NONE, short(node), value.origin)
                )
        return None

    def _generators(self, generators: list[ast.comprehension]) -> None:
        for each in generators:
            self._bind(each.target, element(self._value(each.iter)))
            for condition in each.ifs:
                self._value(condition)


def _bound(node: ast.AST) -> frozenset[str]:
    """Return the names that a function binds itself, those of inner functions left out."""
    if isinstance(node, ast.Module | ast.ClassDef):
        return frozenset()
    found, waiting = set[str](), list(ast.iter_child_nodes(node))
    while waiting:
        child = waiting.pop()
        if isinstance(child, ast.Name) and isinstance(child.ctx, ast.Store):
            found.add(child.id)
        if not isinstance(
            child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Lambda
        ):
            waiting += ast.iter_child_nodes(child)
    return frozenset(found)
