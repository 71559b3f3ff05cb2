"""The steps of a switch, one a module; ``between`` names the one from phase to phase."""
