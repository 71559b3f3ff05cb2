"""Agents' processes: deployment, launchers, identities, the health scan."""
