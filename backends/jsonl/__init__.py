"""The append-only logs: progress and findings, a JSON object a line."""
