"""Results after a run: read, tabulate, compare, gate."""
