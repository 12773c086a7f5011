"""Means over users with 95% intervals and tests, all from one bootstrap over the users of an analysis."""

from collections.abc import Sequence
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from msmrec.evaluation.statistics import Array, Means, bootstrap, interval, paired_p


class Measured(NamedTuple):
    """Numbers over users, and what other samples of the users might have given."""

    value: Array
    """(...)"""
    draws: Array
    """(R, ...)"""

    def minus(self, other: Self) -> "Measured":
        """The difference; both were drawn together, so it is paired user by user."""
        return Measured(self.value - other.value, self.draws - other.draws)

    def at(self, place: int) -> "Measured":
        """The numbers at a place of the first axis."""
        return Measured(self.value[place], self.draws[:, place])

    def interval(self) -> dict[str, Array]:
        """low, high: the flat numbers' 95% percentile intervals."""
        low, high = interval(self.draws.reshape(len(self.draws), -1))
        return {"low": low, "high": high}

    def p(self) -> list[float]:
        """Of each flat number being 0, two-sided; not corrected yet."""
        return [paired_p(column) for column in self.draws.reshape(len(self.draws), -1).T]


def means(values: NDArray[np.floating], counted: NDArray[np.bool_]) -> Means:
    """The mean of each column of a table over the users that count in it.

    Args:
        values: (U, ...). counted: (U, ...) or what is broadcast to it, such as (U, 1).
    """
    weight = np.broadcast_to(counted, values.shape).reshape(len(values), -1).astype(np.float64)
    return Means(values.reshape(len(values), -1) * weight, weight)


def measure(
    statistics: Sequence[Means], shapes: Sequence[tuple[int, ...]], resamples: int, seed: int
) -> list[Measured]:
    """Resamples the users once for all statistics.

    Args:
        statistics: of the same U users, C numbers each. shapes: what each one's C numbers are shaped to.
    """
    users = len(statistics[0].numerator)
    everyone = np.ones((1, users))
    drawn = bootstrap(statistics, users, resamples, seed)
    return [
        Measured(part.at(everyone)[0].reshape(shape), draws.reshape(-1, *shape))
        for part, draws, shape in zip(statistics, drawn, shapes, strict=True)
    ]
