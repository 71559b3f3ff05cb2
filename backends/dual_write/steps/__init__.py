"""The steps of a switch, one a module; ``order`` names the one from phase to phase."""
