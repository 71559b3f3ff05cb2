"""``registry-backend plugins`` and ``plugins new``."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, Parameter

from backends.admin.app import Json, answer, app


def _said(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


_plugins = App(name="plugins")
app.command(_plugins)


@_plugins.default
def plugins(*, json: Json = False) -> int:
    """List the plugins, their stores, and why a plugin is broken; ``new`` creates one.

    Example: registry-backend plugins
    """
    from registry_api import load_plugins

    found = [plugin.to_dict() for plugin in load_plugins().loaded]
    return answer({"plugins": found}, _show_plugins, as_json=json)


@_plugins.command
def new(
    name: str,
    *,
    folder: Annotated[
        Path | None, Parameter(help="folder to create; default: registry-backend-NAME")
    ] = None,
    json: Json = False,
) -> int:
    """Create a Python distribution with a working example store, to replace with your own.

    Example: registry-backend plugins new redis
    """
    from backends.admin.new_plugin import write_plugin

    folder = folder or Path(f"registry-backend-{name}")
    found = {"written": [str(path) for path in write_plugin(name, folder)]}
    said = "\n".join([*found["written"], f"next: make -C {shlex.quote(str(folder))} test"])
    return answer(found, lambda _: _said(said), as_json=json)


def _show_plugins(found: dict[str, Any]) -> None:
    for p in found["plugins"]:
        what = f"BROKEN: {p['broken']}" if p["broken"] else ", ".join(p["stores"])
        sys.stdout.write(f"{p['name']:<20} {p['distribution']} {p['version']}  {what}\n")
