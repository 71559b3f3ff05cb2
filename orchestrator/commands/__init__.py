"""The commands of an orchestrator by what they are about."""
