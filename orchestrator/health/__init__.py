"""Health: agents' records compared with their processes, by one daemon of each host."""
