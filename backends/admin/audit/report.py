"""Show an audit as text and as a page of HTML."""

from __future__ import annotations

import sys
from collections import Counter
from html import escape

from backends.admin.audit.sites import Access, Audit, Kind, Site
from registry_api.workspace.server_cli import printable

__all__ = ["html_page", "show_audit"]

_MEANS = {
    Kind.LOCKED_FILE: "a registry is locked, read, and written or not",
    Kind.LOCKED_READ: "a registry is read by a function with a lock",
    Kind.LOCKED_WRITE: "a registry is written by a function with a lock",
    Kind.HELPER: "a registry is read by a function of the program",
    Kind.LOAD: "a registry is read without a lock",
    Kind.DUMP: "a registry is written without a lock",
    Kind.PROBE: "the file of a registry is tested",
    Kind.LOOK_UP: "a task's folder is looked up by its registry",
    Kind.CHANGE: "what was read of a registry is changed in memory",
    Kind.NAME: "the name of a registry's file is mentioned",
}


def show_audit(audit: Audit, *, sites: bool) -> None:
    """Print the numbers by kind and by file; with ``sites`` each place, a line each."""
    out = _written
    out(f"{_headline(audit)}\n")
    for name, why in audit.unreadable.items():
        out(f"  not audited: {name}: {why}\n")
    if not audit.sites:
        return
    production, tests = audit.count(tests=False), audit.count(tests=True)
    out("\n       code  tests\n")
    for kind in Kind:
        if production[kind] or tests[kind]:
            out(f"  {production[kind]:>9}{tests[kind]:>7}  {kind}: {_MEANS[kind]}\n")
    out("\n     writes  reads  changes  file\n")
    for file, counts in _by_file(audit):
        numbers = [counts[access] for access in (Access.WRITE, Access.READ, Access.CHANGE)]
        out(f"  {numbers[0]:>9}{numbers[1]:>7}{numbers[2]:>9}  {file}\n")
    by_hand = [site for site in audit.sites if site.by_hand and not site.is_test]
    out(f"\nplaces that need a decision by hand: {len(by_hand)}\n")
    for site in audit.sites if sites else ():
        out(f"{_line(site)}\n")
    if not sites:
        out("Each place: --sites, --json or --html\n")


def _written(text: str) -> None:
    """Write lines; what the audited program holds cannot steer the terminal."""
    sys.stdout.write(printable(text, keep="\n"))


def html_page(audit: Audit) -> str:
    """Return the audit as one page, with nothing from elsewhere."""
    production, tests = audit.count(tests=False), audit.count(tests=True)
    kinds = "".join(
        f"<tr><td>{production[kind]}</td><td>{tests[kind]}</td><th scope=row>{kind}</th>"
        f"<td>{_MEANS[kind]}</td></tr>"
        for kind in Kind
        if production[kind] or tests[kind]
    )
    files = "".join(
        f"<details><summary>{escape(file)}: {counts[Access.WRITE]} writes, "
        f"{counts[Access.READ]} reads, {counts[Access.CHANGE]} changes</summary>"
        "<table><tr><th>line<th>function<th>kind<th>access<th>via<th>touches<th>by hand</tr>"
        + "".join(_row(site) for site in audit.sites if site.file == file)
        + "</table></details>"
        for file, counts in _by_file(audit)
    )
    unread = "".join(
        f"<li>{escape(name)}: {escape(why)}</li>" for name, why in audit.unreadable.items()
    )
    return (
        "<!doctype html><html lang=en><meta charset=utf-8><title>Registry audit</title><style>"
        "body{font:15px/1.4 system-ui;margin:2rem auto;max-width:75rem;padding:0 1rem}"
        "table{border-collapse:collapse}td,th{padding:.2rem .6rem;text-align:left;"
        "border-bottom:1px solid #ccc;vertical-align:top}summary{cursor:pointer;padding:.3rem 0}"
        f"</style><h1>{escape(_headline(audit))}</h1>"
        f"<table><tr><th>code<th>tests<th>kind<th>meaning</tr>{kinds}</table>"
        f"<h2>Files</h2>{files}" + (f"<h2>Not audited</h2><ul>{unread}</ul>" if unread else "")
    )


def _headline(audit: Audit) -> str:
    code = [site for site in audit.sites if not site.is_test]
    writes, reads = len(audit.accesses(Access.WRITE)), len(audit.accesses(Access.READ))
    return (
        f"{audit.files} Python files; {len({site.file for site in code})} use registries, in "
        f"{writes} places that write and {reads} that read; "
        f"{len(audit.accesses(Access.CHANGE))} change what was read. Tests apart."
    )


def _by_file(audit: Audit) -> list[tuple[str, Counter[Access]]]:
    """Return the numbers of each file, the file with the most writes first."""
    found: dict[str, Counter[Access]] = {}
    for site in audit.sites:
        found.setdefault(site.file, Counter())[site.access] += 1
    return sorted(found.items(), key=lambda f: (-f[1][Access.WRITE], -f[1].total(), f[0]))


def _line(site: Site) -> str:
    touches = f" [{' '.join(site.touches)}]" if site.touches else ""
    by_hand = f"  by hand: {site.by_hand}" if site.by_hand else ""
    return (
        f"{site.file}:{site.line}: {site.kind}, {site.access}: {site.via}{touches} "
        f"in {site.function}{by_hand}"
    )


def _row(site: Site) -> str:
    cells = (
        *(str(site.line), site.function, str(site.kind), str(site.access), site.via),
        *(" ".join(site.touches), site.by_hand),
    )
    return "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in cells) + "</tr>"
