"""The store in the older orchestrator's files, which older programs may use beside it."""

from backends.json_files.plugin import (
    registry_register_health_checks,
    registry_register_stores,
)

__all__ = ["registry_register_health_checks", "registry_register_stores"]
