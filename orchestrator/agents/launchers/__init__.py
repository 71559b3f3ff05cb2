"""Launchers: how agents' processes are started, found and stopped."""
