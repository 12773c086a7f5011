"""A reranker that is learned instead of set by alpha and beta: the option that the RALLRec paper leaves open.

Which earlier ratings say most about the target? Those whose weighted mean predicts best whether the target was liked.
So a small network gives each candidate (the union of both channels) a weight from how near, how recent and how extreme
it is; the weights are trained through the click that the weighted ratings predict, and then choose the prompt's K.
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from msmrec.columns import RATING
from msmrec.data.prepare import Dataset
from msmrec.retrieval.history import Channel, union

FEATURES = 5
HIDDEN = 16  # width of the network


class LearnedReranker(nn.Module):
    """Weights of candidates, and the click that they predict.

    Args:
        middle, reach: of the rating scale, and how far its ends lie from there.
    """

    def __init__(self, middle: float, reach: float) -> None:
        super().__init__()
        self.middle, self.reach = middle, max(reach, 1e-6)
        self.score = nn.Sequential(nn.Linear(FEATURES, HIDDEN), nn.GELU(), nn.Linear(HIDDEN, 1))
        self.answer = nn.Linear(2, 1)  # from the weighted and the plain mean of the ratings

    def forward(self, features: Tensor, real: Tensor) -> Tensor:
        """(S, C) log weights of candidates; -inf where there is none."""
        weight: Tensor = self.score(features)[..., 0].masked_fill(~real, -torch.inf)
        return weight

    def click(self, weight: Tensor, rating: Tensor, real: Tensor) -> Tensor:
        """(S,) log odds of a click from (S, C) log weights and ratings."""
        share = torch.softmax(weight, 1).nan_to_num()
        plain = (rating * real).sum(1) / real.sum(1).clamp(min=1)
        odds: Tensor = self.answer(torch.stack([(share * rating).sum(1), plain], 1))[:, 0]
        return odds


def candidates(
    dataset: Dataset, reranker: LearnedReranker, relevant: Channel, rows: np.ndarray
) -> tuple[np.ndarray, Tensor, Tensor, Tensor]:
    """The union of both channels, and what tells its ratings apart.

    Args:
        reranker: knows the rating scale, which one user's ratings need not span.
        relevant: from `relevant_history`. rows: (S,) the samples.

    Returns:
        (S, 2K) int32 rows, see `union`; (S, 2K, FEATURES); (S, 2K) ratings, centred by the scale's middle; (S, 2K)
        bool, True at candidates.
    """
    k = relevant.rows.shape[1]
    both, _ = union(dataset, relevant.rows, rows)
    real = torch.from_numpy(both >= 0)
    similarity = np.concatenate([relevant.similarity, np.zeros_like(relevant.similarity)], 1)
    in_near = np.tile(np.repeat(np.array([1, 0], np.float32), k), (len(rows), 1))
    place = np.tile(1 / np.arange(1, k + 1, dtype=np.float32), (len(rows), 2))
    back = np.log1p(np.maximum(rows[:, None] - both, 0)).astype(np.float32)
    rating = ((dataset.column(RATING) - reranker.middle) / reranker.reach).astype(np.float32)[both]
    columns = (np.where(np.isfinite(similarity), similarity, 0), in_near, place * in_near, back, np.abs(rating))
    features = torch.from_numpy(np.stack(columns, -1).astype(np.float32))
    return both, features * real[..., None], torch.from_numpy(rating) * real, real


def fit(
    dataset: Dataset, relevant: Channel, rows: np.ndarray, label: np.ndarray, steps: int = 300, seed: int = 0
) -> LearnedReranker:
    """Trains the weights on samples of the training part, all of them in every step.

    Args:
        relevant: from `relevant_history`. rows, label: (S,) samples and whether they were liked.
    """
    # Lightning evaluates in inference mode, under which nothing can be trained.
    with torch.inference_mode(False), torch.enable_grad(), torch.autocast("cpu", enabled=False):
        scale = dataset.column(RATING)
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            reranker = LearnedReranker(float(scale.min() + scale.max()) / 2, float(np.ptp(scale)) / 2)
        _, features, rating, real = candidates(dataset, reranker, relevant, rows)
        wanted = torch.from_numpy(label.astype(np.float32))
        optimizer = torch.optim.Adam(reranker.parameters(), lr=0.02)
        for _ in range(steps):
            odds = reranker.click(reranker(features, real), rating, real)
            optimizer.zero_grad()
            F.binary_cross_entropy_with_logits(odds, wanted).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    return reranker.requires_grad_(False)


def rerank_learned(dataset: Dataset, reranker: LearnedReranker, relevant: Channel, rows: np.ndarray) -> np.ndarray:
    """(S, K) int32 the candidates of highest weight, best first, -1 pads."""
    both, features, _, real = candidates(dataset, reranker, relevant, rows)
    weight, index = reranker(features, real).topk(relevant.rows.shape[1], dim=1)
    chosen = np.take_along_axis(both, index.numpy(), 1)
    return np.where(torch.isfinite(weight).numpy(), chosen, np.int32(-1))
