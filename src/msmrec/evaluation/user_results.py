"""A finished run user by user: per_user.parquet and predictions.parquet as sums that can be resampled."""

from collections.abc import Sequence
from functools import cached_property

import numpy as np
import polars as pl

from msmrec.artifacts import InputError
from msmrec.columns import RAW_USER_ID, USER_ID
from msmrec.data.prepare import read_parquet
from msmrec.evaluation.statistics import Array, Auc, Means, Statistic, ordered_pairs
from msmrec.run_folder import Run

MAX_AUC_USERS = 8_000  # an AUC's matrix of user pairs has 256 MB then
FROM_PREDICTIONS = ("auc", "log_loss", "accuracy")


class UserResults:
    """One run's test users, in the order of their ids.

    Args:
        run: a finished run that has per_user.parquet.
    """

    def __init__(self, run: Run) -> None:
        self.run = run
        self.table = run.per_user().sort(USER_ID)
        self.users = self.table[USER_ID].to_numpy()
        if self.table[USER_ID].is_duplicated().any():
            raise InputError(f"{run.folder}/per_user.parquet: a user_id has two rows; test the run again")
        self.clicks = "clicks" in self.table.columns

    @cached_property
    def predictions(self) -> pl.DataFrame | None:
        """user (its row in `table`), label, prob; None where the run has no such file."""
        path = self.run.folder / "predictions.parquet"
        if not path.is_file():
            return None
        table = read_parquet(path, columns=[USER_ID, "label", "prob"])
        return table.with_columns(user=pl.Series(np.searchsorted(self.users, table[USER_ID].to_numpy())))

    def has(self, metric: str) -> bool:
        """Whether the metric can be computed again for another sample of the users."""
        if not self.clicks:
            return metric in self.table.columns and metric not in (USER_ID, RAW_USER_ID)
        if metric == "auc" and len(self.users) > MAX_AUC_USERS:
            return False
        return metric == "user_auc" or (metric in FROM_PREDICTIONS and self.predictions is not None)

    def sums(self, metric: str) -> tuple[Array, Array]:
        """(U,) numerators and (U,) denominators of a metric that is a mean over users or over samples."""
        if not self.clicks:
            value, weight = self.table[metric].to_numpy().astype(np.float64), np.ones(len(self.users))
        elif metric == "user_auc":
            value, weight = self.table["auc"].to_numpy(), self.table["samples"].to_numpy().astype(np.float64)
        else:
            assert self.predictions is not None
            label, prob = self.predictions["label"].to_numpy(), self.predictions["prob"].to_numpy().astype(np.float64)
            of_label = np.where(label == 1, prob, 1 - prob)
            loss = (
                -np.log(np.clip(of_label, 1e-15, 1 - 1e-15)) if metric == "log_loss" else (prob > 0.5) == (label == 1)
            )
            user, size = self.predictions["user"].to_numpy(), len(self.users)
            return np.bincount(user, loss, size).astype(float), np.bincount(user, minlength=size).astype(float)
        there = ~np.isnan(value)  # no pair to order, or nothing to find: such a user counts in no mean
        return np.where(there, value * weight, 0.0), there * weight

    def pairs(self) -> np.ndarray:
        """(U, U), see `ordered_pairs`."""
        assert self.predictions is not None
        user, label, prob = (self.predictions[name].to_numpy() for name in ("user", "label", "prob"))
        return ordered_pairs(user, label == 1, prob, len(self.users))


def statistic(metric: str, rows: Sequence[Sequence[UserResults]]) -> Statistic:
    """The metric of each row as a function of the users' weights, on average over its seeds."""
    if metric == "auc":
        table = rows[0][0].table
        clicks = table["clicks"].to_numpy().astype(np.float64)
        pairs = [np.asarray(np.mean([seed.pairs() for seed in seeds], axis=0)) for seeds in rows]
        return Auc(pairs, clicks, table["samples"].to_numpy() - clicks)
    parts = []
    for seeds in rows:
        sums = [seed.sums(metric) for seed in seeds]
        if all(np.array_equal(sums[0][1], denominator) for _, denominator in sums):  # seeds average user by user
            sums = [(np.mean([numerator for numerator, _ in sums], axis=0), sums[0][1])]
        parts.append(sums)
    numerator, denominator = (np.stack([one[side] for sums in parts for one in sums], 1) for side in (0, 1))
    return Means(numerator, denominator, [len(sums) for sums in parts])


def refuse_different_users(results: Sequence[UserResults]) -> None:
    """Refuses runs whose users, or whose users' samples, are not the same.

    Raises:
        InputError: names both runs.
    """
    for other in results[1:]:
        columns = [USER_ID, *(c for c in ("samples", "clicks") if results[0].clicks and other.clicks)]
        if not results[0].table.select(columns).equals(other.table.select(columns)):
            raise InputError(
                f"{results[0].run.folder} and {other.run.folder} cannot be in one table: their per_user.parquet differ"
                f" in {', '.join(columns)} ({len(results[0].users):,} and {len(other.users):,} users)"
            )
