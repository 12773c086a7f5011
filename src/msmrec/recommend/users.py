"""User vectors in the items' space, from the training part alone: nothing is learned.

The published notebook of RAG-VisualRec averages over a user's whole history, test part included; its numbers are no
target.
"""

from collections import Counter
from typing import Literal, NamedTuple

import numpy as np
from scipy.sparse import csr_matrix
from scipy.special import expit

from msmrec.columns import RATING, SPLIT, TIMESTAMP, TRAIN
from msmrec.data.prepare import Dataset
from msmrec.media.features import Features

UserKind = Literal["random", "average", "temporal"]


class UserVectors(NamedTuple):
    """A vector for each user, and how many are not what was asked for."""

    vectors: np.ndarray  # (U + 1, D) float32; row 0 is no user; zero for a user of whom nothing is known
    counts: Counter[str]  # users by what happened: "nothing rated 4 or more: all ratings", "no vector"


def user_vectors(
    kind: UserKind, dataset: Dataset, features: Features, liked: float = 4.0, rate: float = 1.0, seed: int = 0
) -> UserVectors:
    """Builds the vectors of all users.

    * random: drawn from the standard normal distribution, whatever the user rated: the check that must score nothing.
    * average: the mean of the items rated `liked` or higher, or of all items of a user who has none.
    * temporal: the same with weights 1 / (1 + exp(-rate (t - mean t) / std t)), t the times of these ratings.
      RAG-VisualRec has rate .001 and t in seconds, which is a step: beyond an hour or two from the mean, 0 or 1. Here
      times are counted in the user's own standard deviations, so that a user of one evening and one of ten years both
      have a slope.

    Items without a vector do not count.

    Args:
        features: of the items. liked: the lowest rating that is liked. rate: slope of temporal. seed: of random.
    """
    size = dataset.num_users + 1
    if kind == "random":
        vectors = np.random.default_rng(seed).standard_normal((size, features.vectors.shape[1]), np.float32)
        vectors[0] = 0
        return UserVectors(vectors, Counter())
    rows = (dataset.column(SPLIT) == TRAIN) & features.present[dataset.item_id]
    user, item, time = dataset.user_id[rows], dataset.item_id[rows], dataset.column(TIMESTAMP)[rows].astype(np.float64)
    high = dataset.column(RATING)[rows] >= liked
    likes = np.bincount(user[high], minlength=size) > 0
    kept = high | ~likes[user]
    user, item, time = user[kept], item[kept], time[kept]
    count = np.bincount(user, minlength=size)
    weight = np.ones(len(user))
    if kind == "temporal":
        mean = np.bincount(user, time, size) / np.maximum(count, 1)
        away = time - mean[user]
        spread = np.sqrt(np.bincount(user, away**2, size) / np.maximum(count, 1))
        weight = expit(rate * np.divide(away, spread[user], out=np.zeros_like(away), where=spread[user] > 0))
    weight /= np.bincount(user, weight, size)[user]
    mixed = csr_matrix((weight.astype(np.float32), (user, item)), (size, dataset.num_items + 1)) @ features.vectors
    counts = Counter(
        {
            f"nothing rated {liked:g} or more: all ratings": int((~likes & (count > 0)).sum()),
            "no vector": int((~mixed[1:].any(1)).sum()),
        }
    )
    return UserVectors(mixed.astype(np.float32, copy=False), +counts)
