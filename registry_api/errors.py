"""Every error of the contract.

RegistryError
├── InvalidInput (ValueError)
│   ├── InvalidChangeset      a changeset that no store accepts
│   ├── InvalidQuery          a filter, sort or cursor that is not valid
│   ├── SettingsError         a setting that is unknown or malformed
│   ├── UsageError            a command with arguments it does not accept
│   └── CorruptDocument       a file that is not valid; names file and position
├── TaskNotFound (LookupError)
├── UnknownBackend (LookupError)
├── Refused (RuntimeError)    nothing happened; a retry is refused again
│   ├── Conflict              another commit came first (retryable: load again)
│   ├── RecordExists          an append whose id is taken
│   ├── IdempotencyMismatch   the id was used for other content
│   ├── ChangesetExpired      the id is too old to tell a replay from a first use
│   ├── NotNext               a replicated change that is not the next revision
│   ├── BackendMismatch       the configuration contradicts what is recorded
│   ├── SchemaTooNew          the store was written by a newer version
│   ├── ContractTooNew        the store has a newer contract than this host
│   ├── PreflightFailed       a switch whose conditions are not met
│   ├── NotPermitted          files that this user may not use; names their owner
│   ├── ReadOnly              a write through a store opened for reading
│   └── NotSupported          a capability that the store does not declare
├── CursorExpired (LookupError)  the feed no longer holds what follows the cursor
├── VerificationFailed        two stores, or a document and its records, differ
├── Unavailable (OSError)     nothing happened, retry
│   ├── SchemaTooOld          opened for reading: its tables must be upgraded first
│   └── Busy                  a wait timed out; names the holder where known
│       └── SwitchTimedOut    the gate did not become free in time; nothing was changed
├── OutcomeUnknown (OSError)  it may have happened: retry the same changeset
└── StoreClosed (ValueError)
"""

from __future__ import annotations

from typing import ClassVar

__all__ = [
    "BackendMismatch",
    "Busy",
    "ChangesetExpired",
    "Conflict",
    "ContractTooNew",
    "CorruptDocument",
    "CursorExpired",
    "IdempotencyMismatch",
    "InvalidChangeset",
    "InvalidInput",
    "InvalidQuery",
    "NotNext",
    "NotPermitted",
    "NotSupported",
    "OutcomeUnknown",
    "PreflightFailed",
    "ReadOnly",
    "RecordExists",
    "Refused",
    "RegistryError",
    "SchemaTooNew",
    "SchemaTooOld",
    "SettingsError",
    "StoreClosed",
    "SwitchTimedOut",
    "TaskNotFound",
    "Unavailable",
    "UnknownBackend",
    "UsageError",
    "VerificationFailed",
]


class RegistryError(Exception):
    """Base of all errors: a stable ``code``, whether a retry may help, and what to do next."""

    code: ClassVar[str] = "error"
    retryable: ClassVar[bool] = False

    def __init__(self, message: str, *, next_step: str = "", **fields: object) -> None:
        super().__init__(message)
        self.message = message
        self.next_step = next_step
        self.fields = fields

    def __str__(self) -> str:
        return f"{self.message}. {self.next_step}" if self.next_step else self.message


class InvalidInput(RegistryError, ValueError):
    """Input that is invalid whatever the state of the store."""

    code = "invalid_input"


class InvalidChangeset(InvalidInput):
    """A changeset that no store accepts; nothing was changed."""

    code = "invalid_changeset"


class InvalidQuery(InvalidInput):
    """A filter, a limit or a page cursor that is not valid for the kind asked for."""

    code = "invalid_query"


class SettingsError(InvalidInput):
    """A setting that is unknown, malformed or contradicts another."""

    code = "settings"


class UsageError(InvalidInput):
    """A command that was called with arguments it does not accept."""

    code = "usage"


class CorruptDocument(InvalidInput):
    """A file whose content is not valid; ``path`` and ``position`` (bytes) say where."""

    code = "corrupt_document"


class TaskNotFound(RegistryError, LookupError):
    """No task with this id."""

    code = "task_not_found"


class UnknownBackend(RegistryError, LookupError):
    """No installed plugin registers a store of this name."""

    code = "unknown_backend"


class Refused(RegistryError, RuntimeError):
    """Refused: nothing was changed, and the same request will be refused again."""

    code = "refused"


class Conflict(Refused):
    """The task is not at the expected revision: load it again and repeat the decision."""

    code = "conflict"
    retryable = True

    def __init__(self, task_id: str, *, expected: int | None, actual: int) -> None:
        super().__init__(
            f"task {task_id} is at revision {actual}, not at {expected}",
            next_step="Load the task again and repeat the change (transact() does both)",
            task_id=task_id,
            expected=expected,
            actual=actual,
        )
        self.expected = expected
        self.actual = actual


class RecordExists(Refused):
    """An append (progress, finding, handover) whose id the task already has."""

    code = "record_exists"


class IdempotencyMismatch(Refused):
    """The changeset id was used before, for other content."""

    code = "idempotency_mismatch"


class ChangesetExpired(Refused):
    """The id is older than those the task remembers: the change may already have been applied."""

    code = "changeset_expired"


class NotNext(Refused):
    """A replicated change that does not follow the replication position: replay the feed."""

    code = "not_next"


class BackendMismatch(Refused):
    """The configured store contradicts the recorded migration or would hide a registry."""

    code = "backend_mismatch"


class SchemaTooNew(Refused):
    """The store was written by a newer version of this software."""

    code = "schema_too_new"


class ContractTooNew(Refused):
    """The store implements a contract of a newer major version than this host knows."""

    code = "contract_too_new"


class PreflightFailed(Refused):
    """A switch whose conditions are not met; nothing was changed."""

    code = "preflight"


class NotPermitted(Refused):
    """Files that this user may not use; ``fields["owner"]`` is the user who may."""

    code = "not_permitted"


class ReadOnly(Refused):
    """A write through a store that was opened for reading only."""

    code = "read_only"


class NotSupported(Refused):
    """The store does not declare the capability that this call needs."""

    code = "not_supported"


class CursorExpired(RegistryError, LookupError):
    """The feed no longer holds the changes after this cursor: load the tasks again."""

    code = "cursor_expired"


class VerificationFailed(RegistryError):
    """Two stores, or a document and its records, differ."""

    code = "mismatch"


class Unavailable(RegistryError, OSError):
    """Nothing happened; the same call may succeed later."""

    code = "unavailable"
    retryable = True


class SchemaTooOld(Unavailable):
    """The store was written by an earlier version, and was opened for reading only."""

    code = "schema_too_old"


class Busy(Unavailable):
    """A wait for a lock timed out; the message names the holder, where known."""

    code = "busy"


class GaveWay(Busy):
    """A call that stopped for a switch before it changed anything; the gate repeats it."""


class SwitchTimedOut(Busy):
    """A switch could not close the gate before its deadline: nothing was changed."""

    code = "switch_timed_out"


class OutcomeUnknown(RegistryError, OSError):
    """The change may or may not be durable: commit the same changeset again to find out."""

    code = "outcome_unknown"
    retryable = True


class StoreClosed(RegistryError, ValueError):
    """The store was closed."""

    code = "closed"
