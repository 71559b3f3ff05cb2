"""Files, locks, processes and tokens of a workspace."""

from registry_api.workspace.durable_files import make_whole, replace_file, sync_folder, write_file
from registry_api.workspace.file_lock import Flock, ForkSafeLock, acquire_within, holders_in_words
from registry_api.workspace.holders import open_elsewhere, wait_until_released
from registry_api.workspace.instance import (
    boot,
    copied_from,
    instance_of,
    machine,
    make_state_folder,
    place_of,
    registry_id,
)
from registry_api.workspace.lock_timeout import (
    answering,
    at_most,
    give_way,
    giving_way,
    note_wait,
    patience,
    within,
)
from registry_api.workspace.ownership import make_folder, open_owned
from registry_api.workspace.paths import (
    IN_PROJECT,
    SQLITE_FILE,
    STATE_DIR,
    expand_folder,
    has_legacy_registry,
)
from registry_api.workspace.processes import COUNTS, TIMES, Living, Process, living, quantile
from registry_api.workspace.store_location import has_credentials, public, same_place, usable
from registry_api.workspace.tokens import operator_token, reader_token

__all__ = [
    "COUNTS",
    "IN_PROJECT",
    "SQLITE_FILE",
    "STATE_DIR",
    "TIMES",
    "Flock",
    "ForkSafeLock",
    "Living",
    "Process",
    "acquire_within",
    "answering",
    "at_most",
    "boot",
    "copied_from",
    "expand_folder",
    "give_way",
    "giving_way",
    "has_credentials",
    "has_legacy_registry",
    "holders_in_words",
    "instance_of",
    "living",
    "machine",
    "make_folder",
    "make_state_folder",
    "make_whole",
    "note_wait",
    "open_elsewhere",
    "open_owned",
    "operator_token",
    "patience",
    "place_of",
    "public",
    "quantile",
    "reader_token",
    "registry_id",
    "replace_file",
    "same_place",
    "sync_folder",
    "usable",
    "wait_until_released",
    "within",
    "write_file",
]
