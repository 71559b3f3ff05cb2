"""The stores that come with registry-backend, and its admin command."""
