"""Datasets, one plug-in module each."""
