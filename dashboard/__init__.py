"""The dashboard; comes with a later release."""
