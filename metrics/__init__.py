"""Metrics, one per file; names of feature networks and helper modules begin with an underscore."""
