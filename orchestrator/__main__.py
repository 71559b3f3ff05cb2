"""``python -m orchestrator`` is ``registry-orchestrator``."""

from orchestrator.cli import run

run()
