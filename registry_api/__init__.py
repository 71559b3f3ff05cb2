"""The storage contract of an agent registry: everything that its users import.

Authors of stores find more in the modules that ``docs/writing-a-backend.md`` names.
"""

from typing import TYPE_CHECKING

from registry_api import errors
from registry_api.capabilities import (
    ForeignWriters,
    Legacy,
    Logged,
    MigrationSource,
    MoveTarget,
    Reconciled,
    find_capability,
)
from registry_api.client.async_store import AsyncStore
from registry_api.client.liveness import Silence, silent
from registry_api.client.paging import all_records, all_tasks
from registry_api.client.subscriptions import follow
from registry_api.client.transactions import commit_with_retry, transact
from registry_api.errors import RegistryError
from registry_api.migration.phase import MigrationPhase
from registry_api.opening.migrations import open_migration
from registry_api.opening.stores import open_store
from registry_api.plugins.context import OpenContext
from registry_api.plugins.hooks import hookimpl
from registry_api.plugins.manager import Plugins, load_plugins
from registry_api.records.changeset import (
    Change,
    Changeset,
    Commit,
    Delete,
    FeedCursor,
    Limits,
    Op,
    Put,
    new_changeset,
    validate_changeset,
)
from registry_api.records.models import (
    Agent,
    Finding,
    Handover,
    History,
    Kind,
    Phase,
    ProgressEntry,
    Record,
    Review,
    Task,
    Verdict,
    record_key,
)
from registry_api.records.query import ALL, ALL_RECORDS, Page, RecordQuery, Refs, TaskQuery
from registry_api.records.snapshot import Head, RegistryCounts, TaskSnapshot, TaskSummary
from registry_api.records.status import (
    AgentStatus,
    PhaseStatus,
    ReviewStatus,
    TaskStatus,
    task_status,
)
from registry_api.records.task_state import TaskState
from registry_api.renamed import accept_old_modules, renamed
from registry_api.settings import Settings, load_settings
from registry_api.store import CONTRACT_VERSION, Capability, RegistryStore, StoreInfo
from registry_api.wrappers.base import StoreWrapper

__all__ = [
    "ALL",
    "ALL_RECORDS",
    "CONTRACT_VERSION",
    "Agent",
    "AgentStatus",
    "AsyncStore",
    "Capability",
    "Change",
    "Changeset",
    "Commit",
    "Delete",
    "FeedCursor",
    "Finding",
    "ForeignWriters",
    "Handover",
    "Head",
    "History",
    "Kind",
    "Legacy",
    "Limits",
    "Logged",
    "MigrationPhase",
    "MigrationSource",
    "MoveTarget",
    "Op",
    "OpenContext",
    "Page",
    "Phase",
    "PhaseStatus",
    "Plugins",
    "ProgressEntry",
    "Put",
    "Reconciled",
    "Record",
    "RecordQuery",
    "Refs",
    "RegistryCounts",
    "RegistryError",
    "RegistryStore",
    "Review",
    "ReviewStatus",
    "Settings",
    "Silence",
    "StoreInfo",
    "StoreWrapper",
    "Task",
    "TaskQuery",
    "TaskSnapshot",
    "TaskState",
    "TaskStatus",
    "TaskSummary",
    "Verdict",
    "all_records",
    "all_tasks",
    "commit_with_retry",
    "errors",
    "find_capability",
    "follow",
    "hookimpl",
    "load_plugins",
    "load_settings",
    "new_changeset",
    "open_migration",
    "open_store",
    "record_key",
    "silent",
    "task_status",
    "transact",
    "validate_changeset",
]


if not TYPE_CHECKING:  # else a misspelt name would pass

    def __getattr__(name: str) -> object:
        return renamed(__name__, name)


accept_old_modules()
