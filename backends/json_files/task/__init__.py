"""One task in its files: commit, foreign edits, replica, freeze, locks, logs."""
