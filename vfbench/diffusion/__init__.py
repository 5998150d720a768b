"""Noise schedules, noise priors, solvers and the shared parts of diffusion models."""
