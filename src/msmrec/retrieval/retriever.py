"""From a sample to the history in its prompt: retrieved, merged, put in order."""

from typing import Literal

import numpy as np

from msmrec.artifacts import InputError
from msmrec.columns import RATING, TRAIN
from msmrec.data.datamodule import RecDataModule
from msmrec.data.samples import sample_rows
from msmrec.retrieval.history import Channel, history_start, in_time, recent_history, relevant_history, rerank
from msmrec.retrieval.learned_reranker import LearnedReranker, fit, rerank_learned
from msmrec.retrieval.vectors import ItemVectors

Channels = Literal["none", "recent", "relevant", "reranked", "learned"]
NEED_VECTORS = ("relevant", "reranked", "learned")
FITTED_ON = 20_000  # training samples that a learned reranker sees
BLOCK = 1 << 16  # samples whose candidates are weighed at once


class Retriever:
    """How the history of a prompt is chosen.

    Args:
        channels: none; recent (the K latest); relevant (the K nearest to the target); or reranked: both merged by
            eq. 8 of the RALLRec paper; or learned: both merged by a reranker fitted on the training part.
        vectors: which vectors say what is near; needed by relevant, reranked and learned.
        k: ratings in a prompt, at most.
        alpha: weight of the relevant channel in eq. 8.
        beta: how fast the weight of a place falls in eq. 8.
        order: time puts what was chosen in the order in which it was rated; rank puts the best last, next to the
            question.
        window: channels recent only: histories begin at every window-th rating of a user and hold k to k + window - 1
            ratings, so that up to `window` neighbouring samples share their prompt's beginning. A model may then read
            it once for all of them (LlamaCTR does).
    """

    def __init__(
        self,
        channels: Channels = "reranked",
        vectors: ItemVectors | None = None,
        k: int = 30,
        alpha: float = 2 / 3,
        beta: float = 1.0,
        order: Literal["time", "rank"] = "time",
        window: int = 1,
    ) -> None:
        if channels in NEED_VECTORS and vectors is None:
            raise InputError(f"retriever.channels {channels} needs retriever.vectors: which item vectors to compare")
        if k < 1:
            raise InputError(f"retriever.k {k}: at least 1; channels: none leaves the history out")
        if window < 1 or (window > 1 and (channels, order) != ("recent", "time")):
            raise InputError(
                f"retriever.window {window}: at least 1, and above it only with channels: recent and order: time, where"
                " the histories of neighbouring samples begin alike"
            )
        self.channels, self.vectors, self.k, self.window = channels, vectors, k, window
        self.alpha, self.beta, self.order = alpha, beta, order
        self.spaces: list[np.ndarray] = []
        self.learned: LearnedReranker | None = None

    def build(self, data: RecDataModule, aligned: np.ndarray | None = None) -> None:
        """Makes the vectors ready; see ItemVectors.spaces."""
        if self.vectors is not None and self.channels in NEED_VECTORS:
            self.spaces = self.vectors.spaces(data, aligned)
        if self.channels == "learned":
            rows = sample_rows(data.dataset, TRAIN)
            rows = np.sort(np.random.default_rng(0).permutation(rows)[:FITTED_ON])
            label = data.dataset.column(RATING)[rows] > data.label_above
            self.learned = fit(data.dataset, relevant_history(data.dataset, self.spaces, rows, self.k), rows, label)

    def choose(self, data: RecDataModule, rows: np.ndarray) -> np.ndarray:
        """(S, K) int32 rows of earlier ratings for (S,) samples, best first, -1 pads; K is k + window - 1."""
        if self.channels == "none":
            return np.full((len(rows), 1), -1, np.int32)
        if self.channels == "recent":
            return recent_history(data.dataset, rows, self.k, self.window)
        relevant = relevant_history(data.dataset, self.spaces, rows, self.k)
        if self.channels == "relevant":
            return relevant.rows
        if self.channels == "reranked":
            return rerank(data.dataset, relevant.rows, rows, self.alpha, self.beta)
        assert self.learned is not None
        chosen = np.empty_like(relevant.rows)
        for k in range(0, len(rows), BLOCK):
            part = Channel(relevant.rows[k : k + BLOCK], relevant.similarity[k : k + BLOCK])
            chosen[k : k + BLOCK] = rerank_learned(data.dataset, self.learned, part, rows[k : k + BLOCK])
        return chosen

    def groups(self, data: RecDataModule, rows: np.ndarray) -> np.ndarray:
        """(S,) from 0 on: samples with the same number have histories that begin alike (see `window`)."""
        if self.window == 1:
            return np.arange(len(rows))
        start = history_start(data.dataset, rows, self.k, self.window)
        group: np.ndarray = np.unique(start, return_inverse=True)[1]
        return group

    def arrange(self, chosen: np.ndarray, order: Literal["time", "rank"] | None = None) -> np.ndarray:
        """(S, K) the same rows in the order of the prompt; -1 in front. By rank the best is last, by the question."""
        return in_time(chosen) if (order or self.order) == "time" else np.ascontiguousarray(chosen[:, ::-1])
