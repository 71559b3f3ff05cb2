"""The store in a relational database: SQLite, and the seam for others."""

from backends.sql.plugin import (
    registry_register_health_checks,
    registry_register_stores,
)

__all__ = ["registry_register_health_checks", "registry_register_stores"]
