"""The first schema."""

import uuid

from alembic import op

from backends.sql import schema
from backends.sql.statements import ddl

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Make every table; the next version freezes these statements here before it changes them."""
    for statement in ddl():
        op.execute(statement)
    op.execute(schema.meta.insert().values(name="feed_id", value=str(uuid.uuid4())))
