"""The commands of ``registry-backend``, one a module (``switch`` has ``plan``).

Importing them registers them with ``backends.admin.app``.
"""

from backends.admin.commands import (
    demo,
    diff,
    doctor,
    history,
    metrics,
    plugins,
    reconcile,
    recover,
    status,
    switch,
    verify,
    watch,
)

__all__ = [
    "demo",
    "diff",
    "doctor",
    "history",
    "metrics",
    "plugins",
    "reconcile",
    "recover",
    "status",
    "switch",
    "verify",
    "watch",
]
