"""Candidates put in order without a model: the first stage's score, and how well genres, decade and tags fit."""

from collections import Counter
from pathlib import Path

import numpy as np
import polars as pl
from scipy.sparse import csr_array

from msmrec.artifacts import fingerprint
from msmrec.columns import COUNT, GENRES, RATING, TAGS, TRAIN, YEAR
from msmrec.data.batches import flat_rows
from msmrec.data.catalogue import multi_hot
from msmrec.data.prepare import Dataset
from msmrec.recommend.rerank import Reranked, Reranker

BLOCK = 1_024  # users scored over the whole catalogue at once


class FeatureReranker(Reranker):
    """A weighted sum of features, each standardised over the user's candidates; nothing is learned, nothing is random.

    A user's taste for a genre, decade or tag is the mean over their training items that have it of (rating - their mean
    rating + `interest`), times the share of their items that have it: what is rated well and often counts most.

    Args:
        score: weight of the first stage's score.
        genres: weight of the mean taste for the candidate's genres.
        decade: weight of the taste for its decade.
        tags: weight of the mean taste for its tags, where the dataset has tags.
        popularity: weight of the logarithm of its training ratings.
        interest: what having rated an item says beside the rating.
    """

    def __init__(
        self,
        score: float = 1.0,
        genres: float = 0.5,
        decade: float = 0.25,
        tags: float = 0.5,
        popularity: float = 0.5,
        interest: float = 1.0,
    ) -> None:
        self.weights = {"score": score, "genres": genres, "decade": decade, "tags": tags, "popularity": popularity}
        self.interest = interest

    @property
    def fingerprint(self) -> str:
        """See Reranker.fingerprint."""
        return fingerprint("FeatureReranker", self.weights, self.interest)

    def rerank(
        self, dataset: Dataset, users: np.ndarray, candidates: np.ndarray, scores: np.ndarray, cache: Path
    ) -> Reranked:
        """See Reranker.rerank."""
        real = candidates > 0
        total = self.weights["score"] * _standardised(scores, real)
        for name, has in _traits(dataset).items():
            if self.weights[name]:
                total += self.weights[name] * _standardised(self._taste(dataset, users, candidates, has), real)
        count = np.concatenate([[0.0], np.log1p(dataset.items[COUNT].to_numpy())])
        total += self.weights["popularity"] * _standardised(count[candidates], real)
        order = np.argsort(np.where(real, -total, np.inf), axis=1, kind="stable")
        return Reranked(np.take_along_axis(candidates, order, 1), Counter(), [{} for _ in users])

    def _taste(self, dataset: Dataset, users: np.ndarray, candidates: np.ndarray, has: np.ndarray) -> np.ndarray:
        """(U, N) taste for each candidate's traits; `has` as in `_traits`."""
        user, row = flat_rows(dataset.offsets[users], dataset.ends[TRAIN][users])
        count = np.bincount(user, minlength=len(users))
        stars = dataset.column(RATING)[row].astype(np.float64)
        mean = np.bincount(user, stars, len(users)) / np.maximum(count, 1)
        said = (stars - mean[user] + self.interest) / count[user]
        history = csr_array((said, (user, dataset.item_id[row])), shape=(len(users), len(has)))
        weight = has / np.maximum(has.sum(1, keepdims=True), 1)
        result = np.zeros(candidates.shape)
        for first in range(0, len(users), BLOCK):
            mine = slice(first, first + BLOCK)
            of_all = (history[mine] @ has) @ weight.T  # (BLOCK, N + 1)
            result[mine] = np.take_along_axis(of_all, candidates[mine], 1)
        return result


def _traits(dataset: Dataset) -> dict[str, np.ndarray]:
    """(N + 1, T) float32 of each kind: 1 where an item has a trait; row 0 is the padding."""
    items = dataset.items
    decade = items.select((pl.col(YEAR) // 10).cast(pl.String).alias(YEAR))[YEAR]
    lists = {"genres": items[GENRES], "decade": decade.reshape((-1, 1)).arr.to_list()}
    if TAGS in items.columns:
        lists["tags"] = items[TAGS]
    return {name: multi_hot(values) for name, values in lists.items()}


def _standardised(values: np.ndarray, real: np.ndarray) -> np.ndarray:
    """Mean 0 and variance 1 over each user's candidates; 0 where all are equal."""
    count = np.maximum(real.sum(1, keepdims=True), 1)
    centred = np.where(real, values - np.where(real, values, 0).sum(1, keepdims=True) / count, 0)
    spread = np.sqrt((centred**2).sum(1, keepdims=True) / count)
    result: np.ndarray = np.divide(centred, spread, out=np.zeros(values.shape), where=spread > 1e-9)
    return result
