"""Alembic's environment: one connection, batch mode, all migrations in one transaction."""

from typing import Any

from alembic import context
from sqlalchemy import Connection, create_engine, event


def run(connection: Connection) -> None:
    """Run the migrations; the caller or the block ends their transaction."""
    batch = connection.dialect.name == "sqlite"  # it cannot change a table in place
    context.configure(connection=connection, render_as_batch=batch, transaction_per_migration=False)
    with context.begin_transaction():
        context.run_migrations()


def run_on_file(url: str) -> None:
    """Open a SQLite file and run the migrations, alone in it."""
    engine = create_engine(url)

    @event.listens_for(engine, "connect")
    def _no_implicit_begin(connection: Any, _record: object) -> None:
        # sqlite3 would commit before DDL; without its implicit BEGIN, ours covers all migrations.
        connection.isolation_level = None

    @event.listens_for(engine, "begin")
    def _begin(connection: Any) -> None:
        connection.exec_driver_sql("BEGIN EXCLUSIVE")

    try:
        with engine.connect() as connection:
            run(connection)
    finally:
        engine.dispose()


given = context.config.attributes.get("connection")
if given is None:
    run_on_file(context.config.get_main_option("sqlalchemy.url") or "")
else:
    run(given)
