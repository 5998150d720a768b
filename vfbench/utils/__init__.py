"""Files, tensors, devices and memory; nothing specific to video models."""
