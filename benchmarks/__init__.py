"""Benchmarks through the public API, with a baseline in the same run; ``make bench``."""
