"""Weights of the published feature networks: locate, verify and load them.

Only safetensors files are loaded. `vfbench weights import` converts every other format once.
"""
