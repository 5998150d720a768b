"""Training: batches, options, multi-process training, checkpoints, compute matching and the `Trainer`."""
