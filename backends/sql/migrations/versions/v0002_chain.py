"""The chain of each task and of each line of the feed; in PostgreSQL also the leases.

Programs of the version before go on while they are open: they leave the new columns as they are,
and commit reports without the function, which they do not find under its old name.
"""

from contextlib import suppress

import sqlalchemy as sa
from alembic import op

from backends.sql.postgresql import report_function

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Add ``tasks.chain`` and ``feed.chain``; in PostgreSQL also the function that writes them, and
    the table ``leases``.
    """
    postgresql = op.get_bind().dialect.name == "postgresql"
    text = sa.Text(collation="C") if postgresql else sa.Text()
    for table in ("tasks", "feed"):
        op.add_column(table, sa.Column("chain", text, nullable=False, server_default=""))
    if postgresql:
        op.create_table(
            "leases",
            sa.Column("name", text, nullable=False),
            sa.Column("holder", text, nullable=False),
            sa.Column("token", sa.BigInteger, nullable=False),
            sa.Column("expires", sa.BigInteger, nullable=False),
            sa.PrimaryKeyConstraint("name"),
        )
        op.execute("DROP FUNCTION IF EXISTS registry_report")
        bind = op.get_bind()
        # Without PL/pgSQL, reports are committed as any other changeset.
        with suppress(sa.exc.ProgrammingError), bind.begin_nested():
            bind.execute(sa.text(report_function.CREATE))
