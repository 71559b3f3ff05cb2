"""The first schema."""

import uuid

from alembic import op

from backends.sql import schema
from backends.sql.statements import ddl

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Create every table. To change the schema, first copy these statements here as they are."""
    for statement in ddl():
        op.execute(statement)
    op.execute(schema.meta.insert().values(name="feed_id", value=str(uuid.uuid4())))
