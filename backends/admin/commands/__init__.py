"""The commands of ``registry-backend``, one a module (``switch`` has ``plan``).

Importing them registers them with ``backends.admin.app``.
"""

from backends.admin.commands import (
    audit,
    compact,
    complete,
    demo,
    diff,
    doctor,
    history,
    import_,
    metrics,
    plugins,
    reconcile,
    recover,
    schema,
    status,
    switch,
    verify,
    watch,
)

__all__ = [
    "audit",
    "compact",
    "complete",
    "demo",
    "diff",
    "doctor",
    "history",
    "import_",
    "metrics",
    "plugins",
    "reconcile",
    "recover",
    "schema",
    "status",
    "switch",
    "verify",
    "watch",
]
