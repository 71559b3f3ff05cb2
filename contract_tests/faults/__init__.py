"""Faults that tests inject: races, lost requests and answers."""
