"""The admin command ``registry-backend``."""
