"""Alembic's environment: its own connection, batch mode, all migrations in one transaction."""

from typing import Any

from alembic import context
from sqlalchemy import create_engine, event

engine = create_engine(context.config.get_main_option("sqlalchemy.url") or "")


@event.listens_for(engine, "connect")
def _no_implicit_begin(connection: Any, _record: object) -> None:
    # sqlite3 would commit before DDL; without its implicit BEGIN, ours covers all migrations.
    connection.isolation_level = None


@event.listens_for(engine, "begin")
def _begin(connection: Any) -> None:
    connection.exec_driver_sql("BEGIN EXCLUSIVE")


try:
    with engine.connect() as connection:
        context.configure(
            connection=connection, render_as_batch=True, transaction_per_migration=False
        )
        with context.begin_transaction():
            context.run_migrations()
finally:
    engine.dispose()
