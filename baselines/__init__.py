"""Baseline models and controls, one file each."""
