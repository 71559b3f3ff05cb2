"""SQLite: the engine and the queue of its writers."""
