"""Mutants of a store, one family of faults a module, and the report of which tests detect them."""

from contract_tests.mutation import (
    commits,
    concurrency,
    declarations,
    feeds,
    idempotency,
    leases,
    move_targets,
    queries,
    roles,
    sources,
    statuses,
    values,
)
from contract_tests.mutation.base import MUTANTS

__all__ = [
    "MUTANTS",
    "commits",
    "concurrency",
    "declarations",
    "feeds",
    "idempotency",
    "leases",
    "move_targets",
    "queries",
    "roles",
    "sources",
    "statuses",
    "values",
]
