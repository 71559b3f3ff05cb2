"""The launchers that come with the orchestrator."""
