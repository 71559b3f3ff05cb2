"""The functions of Python's library that make, test, read, write and change files and dicts."""

from __future__ import annotations

import ast

__all__ = [
    "CHANGERS",
    "COPIES",
    "ELEMENTS",
    "FILE_MOVES",
    "PATH_CALLS",
    "PROBES",
    "called",
    "short",
]

PROBES = frozenset(
    {
        "exists",
        "lexists",
        "isfile",
        "is_file",
        "getsize",
        "getmtime",
        "getctime",
        "stat",
        "lstat",
        "access",
    }
)
PATH_CALLS = frozenset(
    {
        "Path",
        "PurePath",
        "str",
        "fspath",
        "abspath",
        "realpath",
        "normpath",
        "expanduser",
        "expandvars",
        "resolve",
        "absolute",
        "as_posix",
        "encode",
        "fsencode",
    }
)
FILE_MOVES = frozenset(
    {
        "replace",
        "rename",
        "remove",
        "unlink",
        "copy",
        "copy2",
        "copyfile",
        "move",
        "link",
    }
)
COPIES = frozenset(
    {
        "copy",
        "copy2",
        "copyfile",
        "link",
    }
)
CHANGERS = frozenset(
    {
        "append",
        "extend",
        "insert",
        "pop",
        "remove",
        "update",
        "clear",
        "popitem",
        "sort",
        "reverse",
        "setdefault",
    }
)
ELEMENTS = frozenset(
    {
        "next",
        "list",
        "sorted",
        "reversed",
        "enumerate",
        "filter",
        "iter",
        "tuple",
        "deepcopy",
    }
)
_LONGEST = 60


def called(node: ast.Call) -> tuple[str, ast.expr | None]:
    """Return the last name of what is called, and what it is an attribute of."""
    if isinstance(node.func, ast.Attribute):
        return node.func.attr, node.func.value
    return (node.func.id, None) if isinstance(node.func, ast.Name) else ("", node.func)


def short(node: ast.expr) -> str:
    """Return the text of an expression, shortened."""
    text = ast.unparse(node)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."
