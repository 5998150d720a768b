"""Evaluation protocols: every choice that moves a number, and the presets of the field."""
