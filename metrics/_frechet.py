"""The Frechet distance between the Gaussians fitted to two sets of features."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from vfbench.errors import UserError
from vfbench.metrics._bootstrap import checked_pair


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


def _covariance_root(x: Float[np.ndarray, "n dim"], ddof: int) -> Float[np.ndarray, "rank dim"]:
    """R (min(N, D), D) with R^T R = the covariance of the rows of x."""
    centred = x - x.mean(axis=0)
    root = np.asarray(np.linalg.qr(centred, mode="r"), dtype=np.float64)
    return root / float(np.sqrt(len(x) - ddof))
