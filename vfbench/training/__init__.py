"""The parts of the trainer (`vfbench.train`), each with one idea."""
