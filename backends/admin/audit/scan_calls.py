"""What the calls in a function do to registries, and what they return."""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping
from dataclasses import replace

from backends.admin.audit.calls import (
    CHANGERS,
    COPIES,
    ELEMENTS,
    FILE_MOVES,
    PATH_CALLS,
    PROBES,
    called,
    short,
)
from backends.admin.audit.function import Draft, Edge, Found, Function, Lock, Project
from backends.admin.audit.sites import Access, Kind
from backends.admin.audit.values import (
    Argument,
    Content,
    Data,
    Folder,
    Locked,
    Opened,
    Origin,
    PathTo,
    Value,
    as_data,
    as_opened,
    as_path,
    element,
    origin_of,
    sure,
)

__all__ = ["Calls", "key_of"]

_TEXT = frozenset({"read_text", "read_bytes", "write_text", "write_bytes"})


class Calls:
    """The calls of one function; ``value`` evaluates an expression, ``bind`` gives names values."""

    def __init__(
        self,
        found: Found,
        function: Function,
        project: Project,
        *,
        value: Callable[[ast.expr], Value],
        bind: Callable[[ast.expr, Value], None],
    ) -> None:
        self._found = found
        self._function = function
        self._project = project
        self._names = project.names
        self._known = {
            **dict.fromkeys(self._names.reads, (Kind.LOCKED_READ, Access.READ)),
            **dict.fromkeys(self._names.writes, (Kind.LOCKED_WRITE, Access.WRITE)),
            **dict.fromkeys(self._names.finds, (Kind.LOOK_UP, Access.READ)),
        }
        self._value = value
        self._bind = bind

    def value(self, node: ast.Call) -> Value:
        """Return what a call may return, and note what it does."""
        name, base = called(node)
        name = self._project.meant(name, self._function)
        of = self._value(base) if base is not None else None
        given = [self._value(a) for a in node.args]
        keyed = {k.arg: self._value(k.value) for k in node.keywords}
        arguments = [*node.args, *(k.value for k in node.keywords)]
        first = given[0] if given else next(iter(keyed.values()), None)
        via = short(arguments[0] if arguments else node)
        if name in self._names.locked:
            origin = origin_of(first)
            line = node.lineno
            while line in self._found.locks:  # two on a line
                line = -abs(line) - 1
            self._found.locks[line] = Lock(node, origin, via, node.lineno)
            self._pass(node, name, given, keyed)
            return Locked(sure(origin), line)
        if name in self._known:
            self._site(node, *self._known[name], via, first)
            self._pass(node, name, given, keyed)
            return Data(sure(origin_of(first))) if name in self._names.reads else None
        return self._other(node, name, of, given, keyed)

    def _other(
        self,
        node: ast.Call,
        name: str,
        of: Value,
        given: list[Value],
        keyed: Mapping[str | None, Value],
    ) -> Value:
        at = {"to_thread": 0, "run_sync": 0, "submit": 0, "partial": 0, "run_in_executor": 1}
        if name in at and len(node.args) > at[name]:
            callee = node.args[at[name]]
            inner, base = called(ast.Call(callee, [], []))
            return self._pass(
                node, inner, given[at[name] + 1 :], keyed, base=base, method=base is not None
            )
        named = {"obj": 0, "fp": 1 if name == "dump" else 0, "file": 0, "path": 0}
        for keyword, value in keyed.items():
            if keyword in named and name in {"dump", "load", "open"}:
                place = named[keyword]
                given = [*given, *[None] * (place + 1 - len(given))]
                given[place] = value
        if name == "print" and (opened := as_opened(keyed.get("file"))) is not None:
            self._found.write(node, opened, short(node))
            return None
        for known in (self._file_call, self._move_call, self._path_call, self._data_call):
            handled, value = known(node, name, of, given)
            if handled:
                return value
        return self._pass(node, name, given, keyed)

    def _site(self, node: ast.Call, kind: Kind, access: Access, via: str, value: Value) -> None:
        self._found.drafts.append(Draft(node, kind, access, via, origin_of(value), sure=True))

    def _file_call(  # noqa: PLR0912  (a case a kind of call)
        self, node: ast.Call, name: str, of: Value, given: list[Value]
    ) -> tuple[bool, Value]:
        """Open, read, write, test and move files."""
        first = given[0] if given else None
        path = as_path(of) if name in {"open", *PROBES, *_TEXT} else None
        argument = as_path(first)
        if name == "open":
            place = path or argument
            if place is None:
                return False, None
            return True, Opened(place.origin, node.lineno)
        if name == "fdopen" and isinstance(first, Opened):
            return True, first
        handle = as_opened(first) if name == "load" else None
        if name in {"load", "loads"} and isinstance(first, Opened | Content):
            self._draft(node, Kind.LOAD, Access.READ, first.origin, _argument(node))
            return True, Data(first.origin)
        if handle is not None:
            found = Draft(
                node, Kind.LOAD, Access.READ, short(_argument(node)), handle.origin, Opened
            )
            self._found.drafts.append(found)
            return True, Data(handle.origin)
        if name == "dump" and len(given) > 1:
            handle = as_opened(given[1])
            if handle is not None:
                self._found.write(node, handle, short(node))
                return True, None
        if name in {"write", "writelines"} and (opened := as_opened(of)) is not None:
            self._found.write(node, opened, short(_base(node)))
            return True, None
        if isinstance(of, Opened):
            return True, Content(of.origin) if name in {"read", "readlines"} else None
        if isinstance(of, Content) and name in {"decode", "strip"}:
            return True, of
        if name in _TEXT and path is not None:
            if name.startswith("read"):
                return True, Content(path.origin)
            self._draft(node, Kind.DUMP, Access.WRITE, path.origin, _base(node))
            return True, None
        if name in PROBES:
            place = path or argument
            if place is None:
                return False, None
            self._draft(
                node, Kind.PROBE, Access.READ, place.origin, _base(node) if path else node.args[0]
            )
            if place.folder:
                self._found.tested[place.folder] = place.origin
            return True, None
        return False, None

    def _move_call(
        self, node: ast.Call, name: str, of: Value, given: list[Value]
    ) -> tuple[bool, Value]:
        """Copy, move and remove files: a function of ``os`` or ``shutil``, or a path's method.

        A text and a list have ``replace``, ``remove`` and ``copy`` too.
        """
        if name not in FILE_MOVES:
            return False, None
        base = _base(node)
        paths = [as_path(value) for value in given]
        of_module = isinstance(base, ast.Name) and base.id in {"os", "shutil"}
        if isinstance(node.func, ast.Attribute) and not of_module:
            own = as_path(of) if name in {"unlink", "rename", "replace"} else None
            if (
                name in {"remove", "copy"}
                or len(given) > 1
                or (name in {"rename", "replace"} and len(given) != 1)
            ):
                return False, None
            paths = [own, *paths]
        writes = [p for n, p in enumerate(paths) if p is not None and (n or name not in COPIES)]
        reads = [p for p in paths[:1] if p is not None and name in COPIES]
        for place in writes:
            self._draft(node, Kind.DUMP, Access.WRITE, place.origin, node)
        for place in reads:
            self._draft(node, Kind.LOAD, Access.READ, place.origin, node)
        return bool(writes or reads), None

    def _draft(
        self, node: ast.Call, kind: Kind, access: Access, origin: Origin, via: ast.expr
    ) -> None:
        self._found.drafts.append(Draft(node, kind, access, short(via), origin))

    def _path_call(
        self, node: ast.Call, name: str, of: Value, given: list[Value]
    ) -> tuple[bool, Value]:
        """Make a path of others."""
        if name in {"glob", "rglob", "iglob"} and given and isinstance(given[0], PathTo):
            self._draft(node, Kind.LOOK_UP, Access.READ, given[0].origin, node.args[0])
            return True, PathTo(given[0].origin)
        if name in {"join", "joinpath", "with_name"} and given and isinstance(given[-1], PathTo):
            before = node.args[:-1] or [_base(node)]
            folder = ast.unparse(before[0]) if len(before) == 1 else ""
            return True, replace(given[-1], folder=folder)
        if name in PATH_CALLS:
            for value in (of, *given[:1]):
                if isinstance(value, PathTo | Argument):
                    return True, value
        if name == "format" and isinstance(of, PathTo):
            return True, of
        return False, None

    def _data_call(
        self, node: ast.Call, name: str, of: Value, given: list[Value]
    ) -> tuple[bool, Value]:
        """Read and change what was read of a registry."""
        base = as_data(of) if name in {"get", "values", "items", "copy", *CHANGERS} else None
        if base is not None and isinstance(node.func, ast.Attribute):
            keys = base.keys
            if name in {"get", "setdefault", "pop"} and node.args:
                keys = (*keys, key_of(node.args[0]))
            self._found.touch(node, keys)
            if name in CHANGERS:
                self._found.change(node, replace(base, keys=keys), short(node.func.value))
            return True, element(replace(base, keys=keys)) if name in {"values", "items"} else (
                replace(base, keys=keys)
            )
        first = given[0] if given else None
        if name in ELEMENTS and isinstance(first, Data | PathTo):
            return True, first
        if (
            name in {"append", "add"}
            and isinstance(first, PathTo)
            and isinstance(node.func, ast.Attribute)
        ):
            if isinstance(node.func.value, ast.Name | ast.Attribute):
                self._bind(node.func.value, first)  # a list of paths
            return True, None
        return False, None

    def _pass(
        self,
        node: ast.Call,
        name: str,
        given: list[Value],
        keyed: Mapping[str | None, Value],
        *,
        base: ast.expr | None = None,
        method: bool = False,
    ) -> Value:
        """Pass values to the functions that a call may reach; return what they return."""
        if isinstance(node.func, ast.Attribute) and not method:
            base = node.func.value
        result: Value = None
        for value in (*given, *keyed.values()):
            self._found.hand_on(value)
        for callee in self._project.candidates(name, base, self._function):
            params = callee.params
            bound = callee.owner and (base is not None or callee.name == "__init__")
            shift = 1 if bound and not callee.is_static else 0
            values: dict[int, Value] = {n + shift: v for n, v in enumerate(given)}
            values |= {params.index(k): v for k, v in keyed.items() if k in params}
            for index, value in values.items():
                if value is not None and index < len(params):
                    self._found.edges.append(Edge(Argument(callee.number, index), value))
            if result is None:
                result = _substituted(callee, values)
            via = short(node.args[0] if node.args else node)
            if isinstance(callee.returns, Folder):
                self._found.drafts.append(
                    Draft(node, Kind.LOOK_UP, Access.READ, via, callee.returns.origin)
                )
            elif isinstance(result, Data) and callee.name not in self._names.reads:
                self._found.drafts.append(Draft(node, Kind.HELPER, Access.READ, via, result.origin))
        return result


def _argument(node: ast.Call) -> ast.expr:
    return node.args[0] if node.args else node.keywords[0].value


def _base(node: ast.Call) -> ast.expr:
    return node.func.value if isinstance(node.func, ast.Attribute) else node.func


def key_of(node: ast.expr) -> str:
    """Return the text of a key, ``*`` for one that is computed."""
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else "*"


def _substituted(callee: Function, values: Mapping[int, Value]) -> Value:
    """Return what a function returns for these arguments."""
    found = callee.returns
    origin = found if isinstance(found, Argument) else getattr(found, "origin", None)
    if not isinstance(origin, Argument):
        return found
    if origin.function != callee.number:
        return None
    passed = values.get(origin.index)
    if isinstance(found, Argument):
        return passed
    if isinstance(found, Data) and isinstance(passed, Data):
        return replace(found, origin=passed.origin, keys=(*passed.keys, *found.keys))
    if passed is None or found is None:
        return None
    return replace(found, origin=origin_of(passed)) if origin_of(passed) else None
