"""Fixtures of all tests."""

import pytest


@pytest.fixture(autouse=True)
def _removed_documents_go_at_once(monkeypatch):
    """By default the switch to phase 4 waits 15 s, in which legacy programs may still write."""
    monkeypatch.setenv("REGISTRY_RETIRE_SECONDS", "0.1")
