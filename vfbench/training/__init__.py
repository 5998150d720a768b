"""The parts of the trainer (`vfbench.training.train`), each with one idea."""
