"""The append-only logs: progress and findings, one JSON object per line."""
