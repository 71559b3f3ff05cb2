"""What the tools read: answers about tasks, and waiting for changes."""
