"""The entry point of ``registry-orchestrator``."""

from __future__ import annotations

import gc
import os
import sys
from io import TextIOWrapper

from orchestrator.cli import (  # noqa: F401  (each registers its commands)
    acts,
    agents,
    clean,
    config,
    feed,
    handover,
    health,
    logs,
    serve,
    service_unit,
    tasks,
    top,
)
from orchestrator.cli.app import app
from registry_api.records import is_text
from registry_api.workspace.server_cli import USAGE, run_app

__all__ = ["app", "main", "run"]

app.register_install_completion_command()


def main(tokens: list[str] | None = None) -> int:
    """Run the command; returns the exit code: 0 ok, 1 error, 2 usage."""
    tokens = sys.argv[1:] if tokens is None else tokens
    for stream in (sys.stdout, sys.stderr):  # a terminal may show less than agents write
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="replace")
    if not all(map(is_text, tokens)):
        sys.stderr.write("usage: an argument is not valid text (UTF-8)\n")
        return USAGE
    return run_app(app, tokens)


def run() -> None:
    """Run as a console script."""
    try:
        code = main()
        sys.stdout.flush()
    except BrokenPipeError:  # e.g. `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 1
    gc.freeze()  # see backends.admin.cli.run
    sys.exit(code)
