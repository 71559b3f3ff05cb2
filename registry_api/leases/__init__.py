"""Leases: of several processes, on one host or on many, one does a work."""

from registry_api.leases.files import FileLeases
from registry_api.leases.memory import MemoryLeases
from registry_api.leases.protocol import HasLeases, Lease, Leases, check_lease, leases_of

__all__ = [
    "FileLeases",
    "HasLeases",
    "Lease",
    "Leases",
    "MemoryLeases",
    "check_lease",
    "leases_of",
]
