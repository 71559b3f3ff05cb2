"""The store as the source of a move: replicated, frozen, archived, removed and brought back."""
