"""Noise schedules, priors, solvers and what diffusion models share."""
