"""The HTTP API: routes to read, actions of an operator, the legacy formats."""
