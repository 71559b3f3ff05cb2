"""The command ``registry-orchestrator``: one command or one group of alike commands a module."""

from orchestrator.cli.main import app, main, run

__all__ = ["app", "main", "run"]
