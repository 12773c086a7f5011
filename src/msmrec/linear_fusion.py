"""Principal components and canonical correlations of standardised modalities, exactly, by covariances."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from msmrec.artifacts import InputError

RANK = 1e-10  # of the largest variance: an axis below it is rounding


def principal_axes(rows: NDArray[np.float64], dim: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Directions of largest variance of centred rows (n, D), and the variances, largest first.

    By the eigenvectors of the smaller of the D x D and n x n products: exact, and some ten times as fast as a singular
    value decomposition of the rows. Each axis points to where its largest entry is positive.

    Returns:
        (D, k) orthonormal axes and (k,) variances, k at most `dim` and the rank.
    """
    from scipy.linalg import eigh

    n, width = rows.shape
    product = rows.T @ rows if width <= n else rows @ rows.T
    size = len(product)
    values, vectors = eigh(product, subset_by_index=(max(0, size - dim), size - 1))
    values, vectors = values[::-1], vectors[:, ::-1]
    kept = values > RANK * max(float(values[0]), 1e-300)
    values, vectors = values[kept], vectors[:, kept]
    axes = vectors if width <= n else rows.T @ (vectors / np.sqrt(values))
    return signed(axes), values / n


def signed(axes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Columns turned so that the largest entry of each is positive: the same on every machine."""
    if not axes.size:
        return axes
    top = np.take_along_axis(axes, np.abs(axes).argmax(0)[None], 0)
    return axes * np.where(top < 0, -1.0, 1.0)


def unit_axes(rows: NDArray[np.float64], dim: int) -> NDArray[np.float32]:
    """(D, k) principal axes, scaled so that projected rows have mean square length 1."""
    axes, variances = principal_axes(rows, dim)
    result: NDArray[np.float32] = (axes / np.sqrt(max(float(variances.sum()), 1e-300))).astype(np.float32)
    return result


def principal_blocks(blocks: Sequence[NDArray[np.float64]], dim: int) -> list[NDArray[np.float64]]:
    """PCA of standardised modalities side by side, each scaled to total variance 1 so that wide ones do not dominate.

    Returns:
        M matrices (D_m, k): the sum of a row's M projections is its principal components.
    """
    scales = [1 / np.sqrt(max(float(block.var(0).sum()), 1e-300)) for block in blocks]
    axes, _ = principal_axes(np.concatenate([b * s for b, s in zip(blocks, scales, strict=True)], 1), dim)
    parts = np.split(axes, np.cumsum([block.shape[1] for block in blocks])[:-1])
    return [part * scale for part, scale in zip(parts, scales, strict=True)]


def canonical_blocks(
    blocks: Sequence[NDArray[np.float64]], dim: int, regularisation: float
) -> list[NDArray[np.float64]]:
    """Regularised generalised CCA (MAXVAR: Kettenring, 1971), which for two modalities is canonical correlation.

    With C_ab = X_a^T X_b / n and R_a = C_aa + r I = L_a L_a^T, the top eigenvectors of the matrix whose blocks are
    I on the diagonal and L_a^{-1} C_ab L_b^{-T} elsewhere. For two modalities its eigenvalues are 1 + rho, rho the
    (regularised) canonical correlations. Directions with eigenvalue 1 or less correlate with nothing and are dropped.

    Args:
        blocks: M standardised modalities (n, D_m) of the same items; constant columns are 0, and get weight 0.
        dim: directions to keep.
        regularisation: r.

    Returns:
        M matrices (D_m, k); each variate w has w^T R_a w = 1 on average over the modalities.
    """
    from scipy.linalg import eigh, solve_triangular, svd

    if len(blocks) < 2:
        raise InputError("fusion cca needs at least 2 modalities; take pca for one")
    n = len(blocks[0])
    roots = []
    for block in blocks:
        product = block.T @ block / n
        product[np.diag_indices_from(product)] += regularisation
        roots.append(np.linalg.cholesky(product))

    def between(a: int, b: int) -> NDArray[np.float64]:
        left = solve_triangular(roots[a], blocks[a].T @ blocks[b] / n, lower=True)
        result: NDArray[np.float64] = solve_triangular(roots[b], left.T, lower=True).T
        return result

    if len(blocks) == 2:  # the same by a singular value decomposition of one block, in a fraction of the time
        left, rho, right = svd(between(0, 1), full_matrices=False)
        kept = np.flatnonzero(rho > RANK)[:dim]
        stacked = np.concatenate([left[:, kept], right[kept].T]) / np.sqrt(2)
    else:
        ends = np.cumsum([0, *(block.shape[1] for block in blocks)])
        whole = np.eye(ends[-1])
        for a in range(len(blocks)):
            for b in range(a):
                whole[ends[a] : ends[a + 1], ends[b] : ends[b + 1]] = between(a, b)  # eigh reads the lower half
        values, vectors = eigh(whole, subset_by_index=(max(0, len(whole) - dim), len(whole) - 1))
        stacked = vectors[:, ::-1][:, values[::-1] > 1 + RANK]
    parts = np.split(signed(stacked) * np.sqrt(len(blocks)), np.cumsum([b.shape[1] for b in blocks])[:-1])
    return [solve_triangular(root, part, lower=True, trans="T") for root, part in zip(roots, parts, strict=True)]
