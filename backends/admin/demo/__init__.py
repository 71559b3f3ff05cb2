"""The demo: move an inconsistent registry under load, then check it independently."""
