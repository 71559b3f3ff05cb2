"""The demo: a rotten registry, writers that do not stop, a move, an independent check."""
