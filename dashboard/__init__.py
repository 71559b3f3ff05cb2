"""HTTP API and live pages that show the current state of a registry; they use only its store."""
