"""Bring an older database to the present schema with Alembic."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import URL

__all__ = ["upgrade"]


def upgrade(dialect: str, path: Path) -> None:
    """Run every migration that the database file has not seen."""
    url = URL.create(dialect, database=str(path)).render_as_string(hide_password=False)
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).with_name("migrations")))
    config.set_main_option("sqlalchemy.url", url.replace("%", "%%"))
    command.upgrade(config, "head")
