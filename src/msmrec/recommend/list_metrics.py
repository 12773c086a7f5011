"""Metrics of given lists, where a model has no scores of all items: what is not in a list is not found."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from msmrec.data.batches import flat_rows
from msmrec.data.prepare import Dataset
from msmrec.metrics.beyond_accuracy import TIERS, Catalogue, list_measures
from msmrec.metrics.ranking import cold_metrics, ranking_metrics

LISTED = 10  # first items of a list, which measures without cutoffs are of
NOWHERE = 2**31 - 1  # place of what is not in a list: below no cutoff, however few items there are


class Targets(NamedTuple):
    """What the lists of some users should hold."""

    users: np.ndarray  # (B,) user_id
    code: np.ndarray  # (S,) int64 user_id (N + 1) + item_id of every target
    amount: Tensor  # (B,) targets of each user, at least one
    cold_amount: Tensor  # (B,) those without any training interaction


def targets_of(dataset: Dataset, users: np.ndarray, split: int, tier: np.ndarray) -> Targets:
    """The items of the part `split` (VAL or TEST) of users (B,), who have at least one each."""
    start, end = dataset.ends[split - 1][users], dataset.ends[split][users]
    owner, rows = flat_rows(start, end)
    item = dataset.item_id[rows]
    cold = np.bincount(owner[tier[item] == TIERS.index("cold")], minlength=len(users))
    code = users[owner].astype(np.int64) * (dataset.num_items + 1) + item
    return Targets(users, code, torch.from_numpy(end - start), torch.from_numpy(cold))


def hit_ranks(lists: np.ndarray, targets: Targets, num_items: int, tier: np.ndarray | None = None) -> Tensor:
    """(B, K) the place (from 0) of every hit, NOWHERE where there is none; with `tier`, only of hits on cold items.

    Args:
        lists: (B, K) item ids of the targets' users, best first, 0 pads.
    """
    hit = np.isin(targets.users[:, None].astype(np.int64) * (num_items + 1) + lists, targets.code)
    if tier is not None:
        hit &= tier[lists] == TIERS.index("cold")
    return torch.from_numpy(np.where(hit, np.arange(lists.shape[1]), NOWHERE))


def list_metrics(
    lists: np.ndarray,
    cold_lists: np.ndarray,
    targets: Targets,
    catalogue: Catalogue,
    taste: Tensor,
    cutoffs: tuple[int, ...],
) -> tuple[dict[str, Tensor], dict[str, float]]:
    """All metrics of one recommender's lists, under the names that RecModule gives them.

    Args:
        lists: (B, K) best first. cold_lists: (B, LISTED) of cold items alone. targets: of the same users.
        taste: (B, G) genres of the users' histories. cutoffs: k of the ranking metrics.

    Returns:
        (B,) metrics of each user, with `retrieval_recall@K` of the whole lists; and the metrics of all.
    """
    num_items, tier = len(catalogue.popularity) - 1, catalogue.tier.numpy()
    ranks = hit_ranks(lists, targets, num_items)
    per_user = ranking_metrics(ranks, targets.amount, cutoffs)
    per_user[f"retrieval_recall@{lists.shape[1]}"] = (ranks < NOWHERE).sum(1) / targets.amount
    means = {name: float(value.double().mean()) for name, value in per_user.items()}
    of_lists, overall = list_measures(torch.from_numpy(lists[:, :LISTED].astype(np.int64)), catalogue, taste)
    cold_ranks = hit_ranks(lists, targets, num_items, tier), hit_ranks(cold_lists, targets, num_items)
    cold, cold_means = cold_metrics(*cold_ranks, targets.cold_amount, LISTED)
    return {**per_user, **of_lists, **cold}, means | overall | cold_means
