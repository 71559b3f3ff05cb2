"""Stores around a store: errors, metrics, events, the gate."""

from registry_api.wrappers.base import StoreWrapper
from registry_api.wrappers.border import Border, answered
from registry_api.wrappers.events import observed, observer
from registry_api.wrappers.gated import GatedStore
from registry_api.wrappers.metrics import MeteredStore
from registry_api.wrappers.role_check import writer_only

__all__ = [
    "Border",
    "GatedStore",
    "MeteredStore",
    "StoreWrapper",
    "answered",
    "observed",
    "observer",
    "writer_only",
]
