"""Samples for the tests of statistics: the golden inputs, and Gaussian samples of known moments."""

from __future__ import annotations

import numpy as np

# Inputs of the golden values: features of real and of generated clips, and logits.
REAL = np.random.RandomState(11).standard_normal((96, 24))
FAKE = 0.8 * np.random.RandomState(12).standard_normal((80, 24)) + 0.3
LOGITS = 2 * np.random.RandomState(13).standard_normal((100, 7))


def gaussian(n: int, dim: int, *, seed: int, scale: float = 1.0, shift: float = 0.0) -> np.ndarray:
    white: np.ndarray = np.random.default_rng(seed).standard_normal((n, dim))
    return scale * white + shift


def with_moments(n: int, mean: np.ndarray, covariance: np.ndarray, *, seed: int) -> np.ndarray:
    """Samples (n, D) with exactly this mean and covariance (normalised by n - 1)."""
    white = gaussian(n, len(mean), seed=seed)
    white -= white.mean(axis=0)
    white = white @ np.linalg.inv(np.linalg.cholesky(np.cov(white.T))).T
    exact: np.ndarray = mean + white @ np.linalg.cholesky(covariance).T
    return exact
