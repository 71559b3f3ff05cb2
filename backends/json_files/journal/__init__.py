"""The journal of a task, its intents, and the counter of feed numbers."""
