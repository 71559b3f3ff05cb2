"""The store in the legacy orchestrator's files, which legacy programs may use at the same time."""

from backends.json_files.plugin import (
    registry_register_health_checks,
    registry_register_importers,
    registry_register_stores,
)

__all__ = [
    "registry_register_health_checks",
    "registry_register_importers",
    "registry_register_stores",
]
