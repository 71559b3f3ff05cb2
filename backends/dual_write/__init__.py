"""Two stores as one while a registry moves from the first to the second."""

from backends.dual_write.plugin import (
    registry_open_migration,
    registry_register_health_checks,
    registry_register_stores,
)

__all__ = ["registry_open_migration", "registry_register_health_checks", "registry_register_stores"]
