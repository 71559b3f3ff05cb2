"""An orchestrator of coding agents that keeps all its state in the registry store."""
