"""The importer of task-master's ``tasks.json``."""

from backends.task_master.plugin import registry_register_importers

__all__ = ["registry_register_importers"]
