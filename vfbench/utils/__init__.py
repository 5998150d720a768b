"""Files, tensors, devices and memory of the machine; nothing about video models."""
