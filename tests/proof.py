"""How often a test repeats: a few times in ``make test``, more often in ``make proof``."""

import os

PROVING = os.environ.get("PROOF") == "1"


def times(often: int, *, proof: int) -> int:
    """Return how often to repeat."""
    return proof if PROVING else often
