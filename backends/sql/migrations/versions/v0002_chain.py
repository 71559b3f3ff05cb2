"""The chain of each task and of each line of the feed; in PostgreSQL also the leases.

Programs of the version before go on while they are open: they leave the new columns as they are.
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Add ``tasks.chain`` and ``feed.chain``; in PostgreSQL also the table ``leases``."""
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
