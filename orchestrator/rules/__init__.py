"""The domain rules: pure functions of (snapshot, command) that return ops.

Each raises an error of ``orchestrator.errors`` and then changes nothing. ``transact`` runs them.
"""
