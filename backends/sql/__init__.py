"""The store in a relational database: SQLite, and the interface for other engines."""

from backends.sql.plugin import (
    registry_register_health_checks,
    registry_register_stores,
)

__all__ = ["registry_register_health_checks", "registry_register_stores"]
