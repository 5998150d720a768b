"""The kernel distance: the squared maximum mean discrepancy with a polynomial kernel."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TypeAlias

import numpy as np
from jaxtyping import Float, Int

from vfbench.errors import UserError, unknown
from vfbench.metrics._mmd_sums import KernelSums, Pairs
from vfbench.metrics._two_sample import Labels, checked_pair

Kernel: TypeAlias = Callable[[np.ndarray, np.ndarray], np.ndarray]

ESTIMATORS = ("unbiased", "biased")  # of KVD and KID, of JEDi


def check_degree(degree: int) -> None:
    """Raise `UserError` unless `degree` is at least 1."""
    if degree < 1:
        raise UserError(f"degree = {degree}: the degree of the polynomial kernel is a whole number from 1; usual is 3")


def check_estimator(estimator: str) -> None:
    """Raise `UserError` unless `estimator` is one that there is."""
    if estimator not in ESTIMATORS:
        raise unknown("estimator", estimator, ESTIMATORS)


def polynomial_kernel(
    x: Float[np.ndarray, "n dim"],
    y: Float[np.ndarray, "m dim"],
    *,
    degree: int = 3,
    gamma: float | None = None,
    coef0: float = 1.0,
) -> Float[np.ndarray, "n m"]:
    """(gamma x.y + coef0)^degree for every pair of rows; gamma None is 1 / D."""
    scale = 1.0 / x.shape[1] if gamma is None else gamma
    gram: np.ndarray = (scale * (x @ y.T) + coef0) ** degree
    return gram


def kernel_distance(
    x: Float[np.ndarray, "n _"],
    y: Float[np.ndarray, "m _"],
    *,
    degree: int = 3,
    gamma: float | None = None,
    coef0: float = 1.0,
    estimator: str = "unbiased",
) -> float:
    """MMD^2 of features x (N, D), generated, and y (M, D), real, in float64; unbiased: a U-statistic over all pairs.

    mean over i != j of k(x_i, x_j) + the same of y - 2 mean of k(x_i, y_j): Gretton et al., JMLR 13, 2012, eq. 3, with
    the kernel of Binkowski et al., arXiv 1801.01401; DIGAN and TATS call it KVD. Unbounded above; for two samples of
    one distribution its mean is 0, so it may be negative and is not clipped. The `biased` estimator keeps the pairs of
    a clip with itself (eq. 5, without the root); it is at least 0, and too high by a term in 1 / N. The inputs are not
    changed.

    Raises `UserError` for NaN or infinity, fewer than two rows, different widths, a degree below 1, or another
    estimator.
    """
    check_degree(degree)
    check_estimator(estimator)
    x, y = checked_pair(x, y, "kernel distance")
    kernel = partial(polynomial_kernel, degree=degree, gamma=gamma, coef0=coef0)
    return kernel_sums(x, y, np.arange(len(x)), np.arange(len(y)), kernel).distance(estimator)


def kernel_sums(
    x: Float[np.ndarray, "n dim"],
    y: Float[np.ndarray, "m dim"],
    x_labels: Labels,
    y_labels: Labels,
    kernel: Kernel = polynomial_kernel,
) -> KernelSums:
    """What the kernel distance and its standard error are made of, whole clusters being independent."""
    x, y = x[_sorted(x_labels)], y[_sorted(y_labels)]
    pairs = Pairs(lambda i: kernel(x[i], x), lambda i: kernel(x[i], y), lambda i: kernel(y[i], y))
    return KernelSums.of(pairs, np.bincount(x_labels), np.bincount(y_labels))


def kernel_difference(
    a: Float[np.ndarray, "n dim"],
    b: Float[np.ndarray, "n dim"],
    y: Float[np.ndarray, "m dim"],
    x_labels: Labels,
    y_labels: Labels,
    kernel: Kernel = polynomial_kernel,
) -> KernelSums:
    """The same of the kernel distance of `a` less that of `b`, row i of both for the same request.

    It is a kernel distance itself, with the difference of the kernels; the pairs of real clips cancel.
    """
    order = _sorted(x_labels)
    a, b, y = a[order], b[order], y[_sorted(y_labels)]
    pairs = Pairs(
        lambda i: kernel(a[i], a) - kernel(b[i], b),
        lambda i: kernel(a[i], y) - kernel(b[i], y),
        lambda i: np.zeros((i.stop - i.start, len(y))),
    )
    return KernelSums.of(pairs, np.bincount(x_labels), np.bincount(y_labels))


def _sorted(labels: Labels) -> Int[np.ndarray, " _"]:
    """The rows, those of one cluster together."""
    return np.argsort(labels, kind="stable")


def subset_distances(
    x: Float[np.ndarray, "n dim"],
    y: Float[np.ndarray, "m dim"],
    kernel: Kernel = polynomial_kernel,
    *,
    subsets: int,
    size: int,
    seed: int,
) -> Float[np.ndarray, " subsets"]:
    """The unbiased distance of `subsets` pairs of random subsets of `size` clips, drawn without replacement.

    The rows are those that torch-fidelity and its relatives draw with the same seed (numpy's legacy generator, x before
    y). Raises `UserError` where a sample has fewer than `size` clips.
    """
    least = min(len(x), len(y))
    if not 2 <= size <= least:
        raise UserError(f"subset_size = {size}: subsets of 2 to {least} clips can be drawn from the samples at hand")
    rng = np.random.RandomState(seed)
    drawn = [[rng.choice(len(each), size, replace=False) for each in (x, y)] for _ in range(subsets)]
    every = np.arange(size)
    return np.array([kernel_sums(x[i], y[j], every, every, kernel).distance("unbiased") for i, j in drawn])
