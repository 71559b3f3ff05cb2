"""Upgrade an older database to the current schema with Alembic."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import URL

__all__ = ["upgrade"]


def upgrade(dialect: str, path: Path) -> None:
    """Run every migration that has not been applied to the database file."""
    url = URL.create(dialect, database=str(path)).render_as_string(hide_password=False)
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).with_name("migrations")))
    config.set_main_option("sqlalchemy.url", url.replace("%", "%%"))
    command.upgrade(config, "head")
