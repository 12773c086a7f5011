"""The second stage: a user's candidates in a better order."""

from abc import ABC, abstractmethod
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import numpy as np

from msmrec.data.prepare import Dataset


class Reranked(NamedTuple):
    """Candidates in their new order."""

    items: np.ndarray  # (U, N) the same candidates, best first; 0 pads at the end
    counts: Counter[str]  # what happened, in users: "repaired: id not among the candidates", "fell back: server: ..."
    reasons: list[dict[int, str]]  # U: item -> why, where the reranker says


class Reranker(ABC):
    """Puts candidates into an order; never adds one or drops one."""

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """All that the order depends on, beside the dataset, the users and their candidates."""

    @abstractmethod
    def rerank(
        self, dataset: Dataset, users: np.ndarray, candidates: np.ndarray, scores: np.ndarray, cache: Path
    ) -> Reranked:
        """Orders the candidates of each user; of the user it knows the training part alone.

        Args:
            dataset: ratings and items.
            users: (U,) user_id.
            candidates: (U, N) item_id, best first by the first stage; 0 pads at the end.
            scores: (U, N) of the first stage.
            cache: where what was paid for is kept.
        """
