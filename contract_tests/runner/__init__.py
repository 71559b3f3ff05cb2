"""Running the contract tests on a store: command, report, limits, recorded calls."""
