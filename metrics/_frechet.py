"""The Frechet distance between the Gaussians fitted to two sets of features, and its influence function."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from vfbench.errors import UserError
from vfbench.metrics._two_sample import checked_pair


def check_ddof(ddof: int) -> None:
    """Raise `UserError` unless the covariance divides by N (0) or by N - 1 (1)."""
    if ddof not in (0, 1):
        raise UserError(f"ddof = {ddof}: the covariance divides by N - ddof; use 1 (N - 1) or 0 (N)")


def frechet_distance(x: Float[np.ndarray, "n _"], y: Float[np.ndarray, "m _"], *, ddof: int = 1) -> float:
    """|mu_x - mu_y|^2 + Tr(S_x + S_y - 2 (S_x S_y)^(1/2)) of features x (N, D), generated, and y (M, D), real.

    Dowson and Landau, J. Multivariate Analysis 12, 1982, eq. 4; for video: Unterthiner et al., arXiv 1812.01717.
    At least 0, and symmetric in x and y. Computed in float64 without changing the inputs. `ddof` 1 divides the
    covariance by N - 1 (tensorflow-gan, VideoGPT, TATS, pytorch-fid), 0 by N (StyleGAN-V, cd-fvd).

    With centred features A and B the last trace is the nuclear norm of A B^T / sqrt((N - ddof)(M - ddof)), and A may be
    replaced by its QR factor. So no matrix is squared, inverted, rooted or given an epsilon, and N < D is as exact as
    N > D; an eigendecomposition of covariances loses half of the digits on the null space there, and `scipy` `sqrtm`
    has returned complex, negative and huge values. A result below 0 by rounding (at most 1e-6 of its terms, which is
    asserted) is returned as 0.

    Raises `UserError` for NaN or infinity, fewer than two rows, different widths, or another `ddof`.
    """
    check_ddof(ddof)
    x, y = checked_pair(x, y, "Frechet distance")
    shift = x.mean(axis=0) - y.mean(axis=0)
    root_x, root_y = _covariance_root(x, ddof), _covariance_root(y, ddof)
    gain = float((shift**2).sum() + (root_x**2).sum() + (root_y**2).sum())
    distance = gain - 2.0 * float(np.linalg.norm(root_x @ root_y.T, ord="nuc"))
    assert distance >= -1e-6 * gain, f"Frechet distance {distance} is negative beyond rounding (terms {gain})"
    return max(distance, 0.0)


def frechet_influence(
    x: Float[np.ndarray, "n _"], y: Float[np.ndarray, "m _"], *, ddof: int = 1
) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " m"]]:
    """The influence of each clip on the Frechet distance of x (N, D) and y (M, D): (N,) and (M,), each of mean 0.

    For a clip at x, centred on its own mean: I(x) = 2 x.(mu_x - mu_y) + x^T (1 - G) x, with G the optimal transport
    map from the first Gaussian to the second, S_x^(-1/2) (S_x^(1/2) S_y S_x^(1/2))^(1/2) S_x^(-1/2); for y the same,
    roles exchanged. It is the derivative of the distance by the weight of that clip, and the sampling variance of the
    distance is Var I_x / N + Var I_y / M to first order.

    With S_x = R_x^T R_x and R_x R_y^T = U s V^T, the map is R_x^-1 U V^T R_y: the roots of the distance itself, again
    without a square or an epsilon. Where N <= D, R_x has no inverse and the pseudo-inverse takes its place: the
    derivative by the weights of the clips at hand stays exact, and their variance that of the distance at this N. What
    a new clip in a direction of its own would do is not among them: the bias, which is large there, and its slope.

    Raises as `frechet_distance` does.
    """
    check_ddof(ddof)
    x, y = checked_pair(x, y, "Frechet influence")
    shift = x.mean(axis=0) - y.mean(axis=0)
    (a, scale_x), (b, scale_y) = _centred(x, ddof), _centred(y, ddof)
    (white_x, root_x), (white_y, root_y) = np.linalg.qr(a), np.linalg.qr(b)
    polar = _polar(root_x @ root_y.T)
    mapped_x = white_x @ (polar @ root_y) * (scale_x / scale_y)
    mapped_y = white_y @ (polar.T @ root_x) * (scale_y / scale_x)
    return _influence(a, mapped_x, shift), _influence(b, mapped_y, -shift)


def _influence(
    x: Float[np.ndarray, "n dim"], mapped: Float[np.ndarray, "n dim"], shift: Float[np.ndarray, " dim"]
) -> Float[np.ndarray, " n"]:
    """2 x.shift + x.x - x.(G x) of each row x, less their mean; `mapped` are the rows G x."""
    values: np.ndarray = (x * (x + 2.0 * shift - mapped)).sum(axis=1)
    return np.asarray(values - values.mean())


def _covariance_root(x: Float[np.ndarray, "n dim"], ddof: int) -> Float[np.ndarray, "rank dim"]:
    """R (min(N, D), D) with R^T R = the covariance of the rows of x."""
    centred, scale = _centred(x, ddof)
    return np.asarray(np.linalg.qr(centred, mode="r"), dtype=np.float64) / scale


def _centred(x: Float[np.ndarray, "n dim"], ddof: int) -> tuple[Float[np.ndarray, "n dim"], float]:
    """The rows of x about their mean, and the root of what their scatter is divided by."""
    return x - x.mean(axis=0), float(np.sqrt(len(x) - ddof))


def _polar(product: Float[np.ndarray, "n m"]) -> Float[np.ndarray, "n m"]:
    """U V^T of the singular value decomposition U s V^T, without the directions in which `product` is 0."""
    u, s, vt = np.linalg.svd(product, full_matrices=False)
    kept = s > s.max() * max(product.shape) * np.finfo(np.float64).eps
    polar: np.ndarray = u[:, kept] @ vt[kept]
    return polar
