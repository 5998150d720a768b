"""Frechet distance between the Gaussians fitted to two sets of features, and its influence function."""

from __future__ import annotations

from typing import Annotated, TypeAlias

import numpy as np
from jaxtyping import Float

from vfbench.errors import UserError
from vfbench.metrics._two_sample import validate_pair

DDOFS = (0, 1)
Ddof: TypeAlias = Annotated[int, DDOFS, "Divisor of the covariances is N - ddof: 0 is N, 1 is N - 1."]


def check_ddof(ddof: int) -> None:
    """Raise `UserError` unless the covariance divides by N (0) or by N - 1 (1)."""
    if ddof not in DDOFS:
        raise UserError(f"ddof = {ddof}: the covariance divides by N - ddof; use 1 (N - 1) or 0 (N)")


def frechet_distance(x: Float[np.ndarray, "n _"], y: Float[np.ndarray, "m _"], *, ddof: int = 1) -> float:
    """Frechet distance |mu_x - mu_y|^2 + Tr(S_x + S_y - 2 (S_x S_y)^(1/2)) of features x (N, D) and y (M, D).

    By convention x are generated clips and y real ones.
    Dowson and Landau, J. Multivariate Analysis 12, 1982, eq. 4; for video: Unterthiner et al., arXiv 1812.01717.
    At least 0, and symmetric in x and y. Computed in float64 without changing the inputs. `ddof` 1 divides the
    covariance by N - 1 (tensorflow-gan, VideoGPT, TATS, pytorch-fid), 0 by N (StyleGAN-V, cd-fvd).

    With centred features A and B the last trace is the nuclear norm of A B^T / sqrt((N - ddof)(M - ddof)), and A may be
    replaced by its QR factor. So no matrix is squared, inverted, rooted or regularised, and N < D is as exact as N > D.
    An eigendecomposition of the covariances loses half of the digits on their null space if N < D, and `scipy` `sqrtm`
    has returned complex, negative and huge values. A result below 0 by rounding (at most 1e-6 of its terms, which is
    asserted) is returned as 0.

    Raises `UserError` for NaN or infinity, fewer than two rows, different widths, or another `ddof`.
    """
    check_ddof(ddof)
    x, y = validate_pair(x, y, "Frechet distance")
    shift = x.mean(axis=0) - y.mean(axis=0)
    root_x, root_y = _covariance_root(x, ddof), _covariance_root(y, ddof)
    scale = float((shift**2).sum() + (root_x**2).sum() + (root_y**2).sum())
    distance = scale - 2.0 * float(np.linalg.norm(root_x @ root_y.T, ord="nuc"))
    assert distance >= -1e-6 * scale, f"Frechet distance {distance} is negative beyond rounding (terms {scale})"
    return max(distance, 0.0)


def frechet_influence(
    x: Float[np.ndarray, "n _"], y: Float[np.ndarray, "m _"], *, ddof: int = 1
) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " m"]]:
    """Influence of each clip on the Frechet distance of x (N, D) and y (M, D): (N,) and (M,), each of mean 0.

    For a row x, centred on the mean of its sample: I(x) = 2 x.(mu_x - mu_y) + x^T (1 - G) x, with G the optimal
    transport map from the first Gaussian to the second, S_x^(-1/2) (S_x^(1/2) S_y S_x^(1/2))^(1/2) S_x^(-1/2). For y
    exchange the roles. I(x) is the derivative of the distance by the weight of that clip, and the sampling variance of
    the distance is Var I_x / N + Var I_y / M to first order.

    With S_x = R_x^T R_x and R_x R_y^T = U s V^T, the map is R_x^-1 U V^T R_y, from the same roots as the distance and
    again without squaring or regularisation. If N <= D, R_x has no inverse and the pseudo-inverse replaces it: the
    derivative by the weights of the given clips stays exact, and gives the variance of the distance at this N. It does
    not cover a new clip outside their span, and so neither the bias, which is large then, nor its slope.

    Raises `UserError` as `frechet_distance` does.
    """
    check_ddof(ddof)
    x, y = validate_pair(x, y, "Frechet influence")
    shift = x.mean(axis=0) - y.mean(axis=0)
    (a, scale_x), (b, scale_y) = _centre(x, ddof), _centre(y, ddof)
    (white_x, root_x), (white_y, root_y) = np.linalg.qr(a), np.linalg.qr(b)
    polar = _polar(root_x @ root_y.T)
    mapped_x = white_x @ (polar @ root_y) * (scale_x / scale_y)
    mapped_y = white_y @ (polar.T @ root_x) * (scale_y / scale_x)
    return _influence(a, mapped_x, shift), _influence(b, mapped_y, -shift)


def _influence(
    x: Float[np.ndarray, "n dim"], mapped: Float[np.ndarray, "n dim"], shift: Float[np.ndarray, " dim"]
) -> Float[np.ndarray, " n"]:
    """Centred values of 2 x.shift + x.x - x.(G x) for each row x; `mapped` holds the rows G x."""
    values: np.ndarray = (x * (x + 2.0 * shift - mapped)).sum(axis=1)
    return np.asarray(values - values.mean())


def _covariance_root(x: Float[np.ndarray, "n dim"], ddof: int) -> Float[np.ndarray, "rank dim"]:
    """Root R (min(N, D), D) of the covariance of the rows of x: R^T R is the covariance."""
    centred, scale = _centre(x, ddof)
    return np.asarray(np.linalg.qr(centred, mode="r"), dtype=np.float64) / scale


def _centre(x: Float[np.ndarray, "n dim"], ddof: int) -> tuple[Float[np.ndarray, "n dim"], float]:
    """Centred rows of x, and sqrt(N - ddof)."""
    return x - x.mean(axis=0), float(np.sqrt(len(x) - ddof))


def _polar(product: Float[np.ndarray, "n m"]) -> Float[np.ndarray, "n m"]:
    """Polar factor U V^T of `product` = U s V^T, restricted to nonzero singular values."""
    u, s, vt = np.linalg.svd(product, full_matrices=False)
    nonzero = s > s.max() * max(product.shape) * np.finfo(np.float64).eps
    polar: np.ndarray = u[:, nonzero] @ vt[nonzero]
    return polar
