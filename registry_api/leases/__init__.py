"""Leases: of several processes, on one host or on many, only one does a job at a time."""

from registry_api.leases.files import FileLeases
from registry_api.leases.memory import MemoryLeases
from registry_api.leases.protocol import Lease, Leases, check_lease, check_name, leases_of

__all__ = [
    "FileLeases",
    "Lease",
    "Leases",
    "MemoryLeases",
    "check_lease",
    "check_name",
    "leases_of",
]
