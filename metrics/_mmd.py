"""Kernel distance: squared maximum mean discrepancy with a polynomial kernel."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import TypeAlias

import numpy as np
from jaxtyping import Float, Int

from vfbench.errors import UserError, unknown
from vfbench.metrics._mmd_sums import KernelSums, PairKernels
from vfbench.metrics._two_sample import Labels, validate_pair

KernelFunction: TypeAlias = Callable[[np.ndarray, np.ndarray], np.ndarray]

MAX_KERNEL = 1e120  # sums of squares of larger kernel values overflow
VISIBLE = 1e-4  # a rounding error below this is none beside the 1 that the kernel adds to x.y / D
ESTIMATORS = ("unbiased", "biased")  # KVD and KID use the first, JEDi the second


def check_degree(degree: int) -> None:
    """Raise `UserError` unless `degree` is at least 1."""
    if degree < 1:
        raise UserError(f"degree = {degree}: the degree of the polynomial kernel is at least 1, usually 3")


def check_estimator(estimator: str) -> None:
    """Raise `UserError` unless `estimator` is `unbiased` or `biased`."""
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
    """Polynomial kernel (gamma x.y + coef0)^degree of every pair of rows; gamma None is 1 / D."""
    scale = 1.0 / x.shape[1] if gamma is None else gamma
    gram: np.ndarray = (scale * (x @ y.T) + coef0) ** degree
    return gram


def check_kernel(x: Float[np.ndarray, "n dim"], y: Float[np.ndarray, "m dim"], kernel: KernelFunction) -> None:
    """Raise `UserError` where kernel values of the longest rows are too large for float64."""
    longest = np.stack([rows[(rows**2).sum(axis=1).argmax()] for rows in (x, y)])
    with np.errstate(over="ignore"):
        largest = float(np.abs(kernel(longest, longest)).max())
    if not largest < MAX_KERNEL:
        size = float(np.abs(longest).max())
        raise UserError(
            f"KVD: features of size {size:.3g} give kernel values of {largest:.3g}, too large for float64: "
            "divide real and generated features by one number, such as their standard deviation"
        )


def check_digits(
    x: Float[np.ndarray, "n dim"], y: Float[np.ndarray, "m dim"], kernel: KernelFunction, error: float
) -> None:
    """Raise `UserError` where rounding hides the standard `error` of a distance, for a large offset of the features."""
    means = np.stack([x.mean(axis=0), y.mean(axis=0)])
    largest = float(np.abs(kernel(means, means)).max())
    rounding = math.sqrt(np.finfo(np.float64).eps) * 4 * largest  # the error comes from sums of squares of four terms
    if rounding > max(error, VISIBLE):
        raise UserError(
            f"KVD: features around {np.abs(means).max():.3g} give kernel values of {largest:.3g}, whose differences "
            "float64 cannot resolve: the kernel depends on the origin, so subtract one offset from real and generated "
            "features, such as the mean of the real ones"
        )


def kernel_distance(
    x: Float[np.ndarray, "n _"],
    y: Float[np.ndarray, "m _"],
    *,
    degree: int = 3,
    gamma: float | None = None,
    coef0: float = 1.0,
    estimator: str = "unbiased",
) -> float:
    """Squared MMD of generated features x (N, D) and real features y (M, D), in float64.

    mean over i != j of k(x_i, x_j) + mean over i != j of k(y_i, y_j) - 2 mean of k(x_i, y_j): the `unbiased` estimator,
    a U-statistic, Gretton et al., JMLR 13, 2012, eq. 3, with the kernel of Binkowski et al., arXiv 1801.01401. DIGAN
    and TATS call it KVD. It is unbounded above; for two samples of one distribution its mean is 0, so it may be
    negative and is not clipped. The `biased` estimator includes the pairs of a clip with itself (eq. 5, without the
    root); it is at least 0, and too high by a term of order 1 / N. The inputs are not changed.

    Raises `UserError` for NaN or infinity, fewer than two rows, different widths, a degree below 1, or another
    estimator.
    """
    check_degree(degree)
    check_estimator(estimator)
    x, y = validate_pair(x, y, "kernel distance")
    kernel = partial(polynomial_kernel, degree=degree, gamma=gamma, coef0=coef0)
    return kernel_sums(x, y, np.arange(len(x)), np.arange(len(y)), kernel).distance(estimator)


def kernel_sums(
    x: Float[np.ndarray, "n dim"],
    y: Float[np.ndarray, "m dim"],
    x_labels: Labels,
    y_labels: Labels,
    kernel: KernelFunction = polynomial_kernel,
) -> KernelSums:
    """Kernel sums for the distance of x and y and its standard error; clusters are independent."""
    x, y = x[_cluster_order(x_labels)], y[_cluster_order(y_labels)]
    pairs = PairKernels(lambda i: kernel(x[i], x), lambda i: kernel(x[i], y), lambda i: kernel(y[i], y))
    return KernelSums.from_pairs(pairs, np.bincount(x_labels), np.bincount(y_labels))


def kernel_difference(
    a: Float[np.ndarray, "n dim"],
    b: Float[np.ndarray, "n dim"],
    y: Float[np.ndarray, "m dim"],
    x_labels: Labels,
    y_labels: Labels,
    kernel: KernelFunction = polynomial_kernel,
) -> KernelSums:
    """Kernel sums for the distance of `a` to `y` minus that of `b` to `y`.

    Row i of `a` and row i of `b` answer one request.

    The difference is itself a kernel distance, with the difference of the kernels; the pairs of real clips cancel.
    """
    order = _cluster_order(x_labels)
    a, b, y = a[order], b[order], y[_cluster_order(y_labels)]
    pairs = PairKernels(
        lambda i: kernel(a[i], a) - kernel(b[i], b),
        lambda i: kernel(a[i], y) - kernel(b[i], y),
        lambda i: np.zeros((i.stop - i.start, len(y))),
    )
    return KernelSums.from_pairs(pairs, np.bincount(x_labels), np.bincount(y_labels))


def _cluster_order(labels: Labels) -> Int[np.ndarray, " _"]:
    """Row indices sorted by cluster."""
    return np.argsort(labels, kind="stable")


def subset_distances(
    x: Float[np.ndarray, "n dim"],
    y: Float[np.ndarray, "m dim"],
    kernel: KernelFunction = polynomial_kernel,
    *,
    subsets: int,
    size: int,
    seed: int,
) -> Float[np.ndarray, " subsets"]:
    """Unbiased distances of `subsets` pairs of random subsets of `size` clips, drawn without replacement.

    Draws the same rows as torch-fidelity with the same seed (numpy's legacy generator, x before y).
    Raises `UserError` if a sample has fewer than `size` clips.
    """
    max_size = min(len(x), len(y))
    if not 2 <= size <= max_size:
        raise UserError(f"subset_size = {size}: subsets of 2 to {max_size} clips can be drawn from these samples")
    rng = np.random.RandomState(seed)
    indices = [[rng.choice(len(each), size, replace=False) for each in (x, y)] for _ in range(subsets)]
    labels = np.arange(size)
    return np.array([kernel_sums(x[i], y[j], labels, labels, kernel).distance("unbiased") for i, j in indices])
