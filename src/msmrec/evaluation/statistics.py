"""Bootstrap over users: intervals of metrics, paired tests of their differences, Holm's correction.

A metric is a function of how often each test user is drawn. Drawing all users once gives the metric itself; drawing as
many users with replacement gives what another sample of users might have given (Efron 1979). All runs see the same
draws, so differences between runs are paired user by user.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csr_matrix

Array = NDArray[np.float64]
BLOCK = 256  # resamples at a time: 256 x 6,040 users are 12 MB


class Statistic(Protocol):
    """A metric of C runs as a function of the users' weights."""

    def at(self, weights: Array) -> Array:
        """(R, U) how often each user is drawn -> (R, C) the metric of each run."""


@dataclass(frozen=True)
class Means:
    """Sums over users divided by sums over users: ranking metrics, log loss, accuracy, user AUC."""

    numerator: Array
    """(U, C)"""
    denominator: Array
    """(U, C): 1 for a mean over users, a user's samples for a mean over samples"""
    columns: Sequence[int] | None = None
    """how many columns each run has, if not one: seeds, whose metrics are averaged"""

    def at(self, weights: Array) -> Array:
        """(R, U) -> (R, runs), NaN where nobody is drawn who has the metric."""
        with np.errstate(invalid="ignore"):
            ratio: Array = (weights @ self.numerator) / (weights @ self.denominator)
        if self.columns is None:
            return ratio
        return np.stack([run.mean(1) for run in np.split(ratio, np.cumsum(self.columns)[:-1], axis=1)], 1)


@dataclass(frozen=True)
class Auc:
    """AUC over all samples, exact for every resample of users.

    A user drawn w_u times counts w_u times in every pair of a click and another sample, so AUC is
    Σ_uv w_u w_v A_uv / (Σ_u w_u clicks_u)(Σ_v w_v others_v), with A from `ordered_pairs`.
    """

    pairs: Sequence[NDArray[np.float32]]
    """C of (U, U)"""
    clicks: Array
    """(U,) clicks of each user"""
    others: Array
    """(U,) samples that are no clicks"""

    def at(self, weights: Array) -> Array:
        """(R, U) -> (R, C)."""
        drawn = weights.astype(np.float32)
        ordered = [np.einsum("ru,ru->r", drawn @ pairs, weights, dtype=np.float64) for pairs in self.pairs]
        every = (weights @ self.clicks) * (weights @ self.others)
        return np.stack(ordered, 1) / every[:, None]


def ordered_pairs(user: NDArray[np.int64], clicked: NDArray[np.bool_], prob: Array, users: int) -> NDArray[np.float32]:
    """How often a click of user u is scored above another sample of user v; ties count one half.

    Args:
        user: (S,) in 0..users - 1. clicked: (S,). prob: (S,).

    Returns:
        (users, users); its sum over clicks x others is the AUC.
    """
    levels, level = np.unique(prob, return_inverse=True)
    shape = users, len(levels)
    ones = np.ones(len(user), np.float32)
    click = csr_matrix((ones[clicked], (user[clicked], level[clicked])), shape).tocsc()
    other = csr_matrix((ones[~clicked], (user[~clicked], level[~clicked])), shape).tocsc()
    result = np.zeros((users, users), np.float32)
    below = np.zeros(users, np.float32)  # samples without a click at lower levels
    for start in range(0, len(levels), 2048):
        here = other[:, start : start + 2048].toarray()  # (U, block)
        upto = np.cumsum(here, 1) + below[:, None]
        result += click[:, start : start + 2048] @ (upto - here / 2).T
        below = upto[:, -1]
    return result


def resamples(users: int, number: int, seed: int) -> Iterator[Array]:
    """Blocks (R, U) of multinomial weights: how often each user is drawn in `users` draws; `number` rows in all."""
    generator = np.random.default_rng(seed)
    for start in range(0, number, BLOCK):
        rows = min(BLOCK, number - start)
        drawn = generator.integers(users, size=(rows, users)) + users * np.arange(rows)[:, None]
        yield np.bincount(drawn.ravel(), minlength=rows * users).reshape(rows, users).astype(np.float64)


def bootstrap(statistics: Sequence[Statistic], users: int, number: int, seed: int = 0) -> list[Array]:
    """(number, C) of each statistic over the same resamples of users."""
    blocks = [[statistic.at(weights) for statistic in statistics] for weights in resamples(users, number, seed)]
    return [np.concatenate(parts) for parts in zip(*blocks, strict=True)]


def interval(draws: Array) -> Array:
    """(2, ...) low and high: the 95% percentile intervals of (R, ...) bootstrap values."""
    return np.asarray(np.quantile(draws, [0.025, 0.975], axis=0))


def paired_p(differences: Array) -> float:
    """Two-sided p of "no difference", from (R,) bootstrap values of a difference on the same users.

    Twice the share of resamples on the rarer side of zero, so it agrees with the percentile interval; the added one
    keeps it from being 0 (Davison & Hinkley 1997, 4.2.3). Chosen over Wilcoxon's test because that asks about ranks of
    differences, of which most are zero here, not about the means that a table shows; and over a permutation test
    because AUC is no mean over users, and exchanging two models' probabilities would ask that they share a scale.
    """
    rarer = min(int((differences <= 0).sum()), int((differences >= 0).sum()))
    return min(1.0, 2 * (rarer + 1) / (len(differences) + 1))


def holm(p: ArrayLike) -> Array:
    """(n,) Holm's (1979) adjusted p values: the chance of any false alarm among them stays below the level."""
    values = np.asarray(p, float)
    order = np.argsort(values, kind="stable")
    stepped = np.maximum.accumulate(values[order] * np.arange(len(values), 0, -1))
    adjusted = np.empty(len(values))
    adjusted[order] = np.minimum(stepped, 1)
    return adjusted
