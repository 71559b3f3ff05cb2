"""``python -m dashboard`` is ``registry-dashboard``."""

from dashboard.cli import run

run()
