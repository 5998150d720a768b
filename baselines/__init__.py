"""One file a compared model, and the reference rows real, noise and frozen."""
