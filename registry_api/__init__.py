"""The storage contract of an agent registry: everything that its users import.

Authors of stores find more in the modules that ``docs/writing-a-backend.md`` names.
"""

from registry_api import errors
from registry_api.aio import AsyncStore
from registry_api.changeset import (
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
from registry_api.errors import RegistryError
from registry_api.follow import follow
from registry_api.hooks import hookimpl
from registry_api.models import (
    Agent,
    Finding,
    Handover,
    Kind,
    Phase,
    ProgressEntry,
    Record,
    Review,
    Task,
    Verdict,
    record_key,
)
from registry_api.opening import OpenContext, open_migration, open_store
from registry_api.plugins import Plugins, load_plugins
from registry_api.query import ALL, ALL_RECORDS, Page, RecordQuery, Refs, TaskQuery
from registry_api.renamed import renamed
from registry_api.settings import Settings, load_settings
from registry_api.silence import Silence, all_records, all_tasks, silent
from registry_api.snapshot import Head, RegistryCounts, TaskSnapshot, TaskSummary
from registry_api.state import TaskState
from registry_api.status import (
    AgentStatus,
    PhaseStatus,
    ReviewStatus,
    TaskStatus,
    task_status,
)
from registry_api.store import (
    CONTRACT_VERSION,
    Capability,
    Legacy,
    Logged,
    MigrationSource,
    MoveTarget,
    Reconciled,
    RegistryStore,
    StoreInfo,
)
from registry_api.transact import commit_with_retry, transact
from registry_api.wrapper import StoreWrapper, find_capability

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
    "Handover",
    "Head",
    "Kind",
    "Legacy",
    "Limits",
    "Logged",
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


def __getattr__(name: str) -> object:
    return renamed(__name__, name)
