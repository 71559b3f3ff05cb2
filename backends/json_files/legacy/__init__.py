"""Files and formats of the legacy system: paths, lens, handovers, counters."""
