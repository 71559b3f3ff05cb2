"""Upgrade an older database to the current schema with Alembic."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import URL, Connection

__all__ = ["upgrade"]


def upgrade(path: Path) -> None:
    """Run every migration that has not been applied to a SQLite file."""
    url = URL.create("sqlite", database=str(path)).render_as_string(hide_password=False)
    config = _config()
    config.set_main_option("sqlalchemy.url", url.replace("%", "%%"))
    command.upgrade(config, "head")


def upgrade_by(connection: Connection) -> None:
    """Run every migration that has not been applied, in the transaction of a connection."""
    config = _config()
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).with_name("migrations")))
    return config
