"""The orchestrator; comes with a later release."""
