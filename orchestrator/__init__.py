"""A real orchestrator of coding agents, whose every read and write goes through the store."""
