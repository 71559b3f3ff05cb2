"""One store over two while a registry moves from the first (source) to the second (target)."""

from backends.dual_write.plugin import (
    registry_open_migration,
    registry_register_health_checks,
    registry_register_stores,
)

__all__ = ["registry_open_migration", "registry_register_health_checks", "registry_register_stores"]
