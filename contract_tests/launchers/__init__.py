"""The tests that every launcher must pass; ``--registry-launcher NAME`` runs them.

They start real programs in a temporary folder: Python must run where the launcher starts agents.
"""
