"""``python -m backends.admin`` is ``registry-backend``."""

from backends.admin.cli import run

run()
