"""Every text that a command prints about itself, and every error: ``python -m tests.docs.messages``
writes ``docs/messages.md``.

Read from the source: the same on every Python, and nothing is missed because no test reaches it.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from registry_api import errors

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "messages.md"
PACKAGES = ("registry_api", "backends", "orchestrator", "dashboard", "contract_tests")
PROGRAMS = {
    "registry-backend": "backends/admin/commands/*.py",
    "registry-orchestrator": "orchestrator/cli/*.py",
    "registry-dashboard": "dashboard/cli.py",
}
_HEAD = """# Messages

Every error with its next step, and the help of every command. Words in braces stand for values.
Written by `python -m tests.docs.messages`; a test checks that it is current and that it uses the
terms of the [glossary](glossary.md).

A refusal changes nothing. Its code and whether a retry can help are in the error's class
(`registry_api/errors.py`, `orchestrator/errors.py`).
"""


class Message(NamedTuple):
    module: str
    error: str
    text: str
    next_step: str


def text_of(node: ast.expr | None) -> str:
    """Return a text's template; a value in it is the last name of its expression, in braces."""
    match node:
        case ast.Constant(value=str(text)):
            return text
        case ast.JoinedStr(values=parts):
            return "".join(map(text_of, parts))
        case ast.FormattedValue(value=value):
            name = re.findall(r"[A-Za-z_]+", ast.unparse(value))
            return "{" + (name[-1] if name else "…") + "}"
        case ast.BinOp(op=ast.Add(), left=left, right=right):
            return text_of(left) + text_of(right)
        case ast.IfExp(body=body, orelse=orelse):
            return f"{text_of(body)} / {text_of(orelse)}"
        case None:
            return ""
        case _:
            name = re.findall(r"[A-Za-z_]+", ast.unparse(node))
            return "{" + (name[-1] if name else "…") + "}"


def error_names() -> set[str]:
    """Return the classes of errors: those of the contract, and those built on them elsewhere."""
    known = {name for name, value in vars(errors).items() if isinstance(value, type)}
    known |= {"Issue"}
    trees = [ast.parse(path.read_text()) for path in sources()]
    while True:
        more = {
            node.name
            for tree in trees
            for node in ast.walk(tree)
            if isinstance(node, ast.ClassDef)
            and known & {text_of(b).strip("{}") for b in node.bases}
        } - known
        if not more:
            return known
        known |= more


def sources() -> list[Path]:
    return sorted(path for name in PACKAGES for path in (ROOT / name).rglob("*.py"))


def messages() -> Iterator[Message]:
    """Yield what is raised or reported anywhere, by module."""
    known = error_names()
    for path in sources():
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call):
                continue
            name = text_of(node.func).strip("{}")
            named = {k.arg: k.value for k in node.keywords}
            if name not in known or "next_step" not in named:
                continue
            text = text_of(named.get("what") or (node.args[0] if node.args else None))
            step = text_of(named["next_step"])
            yield Message(path.relative_to(ROOT).as_posix(), name, text, step)


def helps(path: Path) -> Iterator[tuple[str, str, list[tuple[str, str]]]]:
    """Yield each command of a program: its name, its help, its options with their help."""
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef) and any(
            "app" in ast.unparse(d) for d in node.decorator_list
        ):
            options = []
            for arg in [*node.args.args, *node.args.kwonlyargs]:
                found = [
                    text_of(k.value)
                    for call in ast.walk(arg)
                    if isinstance(call, ast.Call)
                    for k in call.keywords
                    if k.arg == "help"
                ]
                options += [(arg.arg.replace("_", "-"), said) for said in found]
            yield node.name.strip("_").replace("_", "-"), ast.get_docstring(node) or "", options


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())


def written() -> str:
    """Return the page."""
    lines = [_HEAD, "## Errors and problems\n"]
    module = ""
    for found in sorted(set(messages())):
        if found.module != module:
            module = found.module
            lines.append(f"\n### {module}\n\n| error | message | next step |\n|---|---|---|")
        lines.append(f"| {found.error} | {_cell(found.text)} | {_cell(found.next_step)} |")
    for program, source in PROGRAMS.items():
        lines.append(f"\n## {program}")
        found = sorted(command for path in ROOT.glob(source) for command in helps(path))
        for name, said, options in found:
            lines.append(f"\n### {program} {name}\n\n{said}\n")
            lines += [f"- `{option}`: {text}" for option, text in options]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    PAGE.write_text(written(), encoding="utf-8")
