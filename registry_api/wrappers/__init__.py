"""Stores around a store: errors, metrics, events, the gate."""

from registry_api.wrappers.base import StoreWrapper
from registry_api.wrappers.border import Border, answered
from registry_api.wrappers.events import observed, observer
from registry_api.wrappers.gated import GatedStore
from registry_api.wrappers.metrics import MeteredStore

__all__ = [
    "Border",
    "GatedStore",
    "MeteredStore",
    "StoreWrapper",
    "answered",
    "observed",
    "observer",
]
