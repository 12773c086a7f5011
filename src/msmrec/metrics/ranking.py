"""Ranking metrics from ranks, on the device, no loop over users.

A rank is how many items stand before the target: 0 is best. Ties never help: an item with the target's score stands
before it, and so does one whose score is NaN, so constant or broken scores are never hits.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

MANY_TARGETS = 32  # of a user: more are counted by a sort, which takes as long as some 30 passes over the scores


def target_ranks(scores: Tensor, target_item: Tensor) -> Tensor:
    """Ranks of the targets among all items.

    Args:
        scores: (B, N) with -inf at items that are no candidates.
        target_item: (B, T) columns of `scores`, 0 pads.

    Returns:
        (B, T) int64, N at padding. Several targets of one user are ranked among each other by their scores.
    """
    value = scores.gather(1, target_item)  # (B, T)
    real = target_item > 0
    # How many items are not worse, and how many targets, self included.
    if target_item.shape[1] > MANY_TARGETS:
        not_worse = scores.shape[1] - _smaller(scores, value)
        other = real.sum(1, keepdim=True) - _smaller(value.masked_fill(~real, torch.inf), value)
    else:  # T is 1 in leave-one-out, so the loop over columns is short
        not_worse = torch.stack([(~(scores < column[:, None])).sum(1) for column in value.unbind(1)], 1)
        other = (~(value[:, None, :] < value[:, :, None]) & real[:, None, :]).sum(2)
    # Targets do not push each other down beyond their own order: take out all of them, put back those before.
    ordered = torch.argsort(value.masked_fill(~real, -torch.inf), descending=True, stable=True)
    rank = not_worse - other + torch.argsort(ordered, stable=True)
    return rank.masked_fill(~real, scores.shape[1])


def _smaller(numbers: Tensor, value: Tensor) -> Tensor:
    """(B, T) how many of a row's (B, K) numbers are smaller than each of its (B, T) values, by one sort of them.

    As comparisons have it, NaN is smaller than nothing and nothing is smaller than NaN; a search would go astray there.
    """
    ascending = numbers.masked_fill(numbers.isnan(), torch.inf).sort(1).values
    return torch.searchsorted(ascending, value.masked_fill(value.isnan(), -torch.inf).contiguous())


def ranking_metrics(ranks: Tensor, num_targets: Tensor, ks: Sequence[int]) -> dict[str, Tensor]:
    """HR, NDCG, recall, MRR and MAP at each k, for each user.

    With one target a user, recall@k equals hit_rate@k and map@k equals mrr@k.

    Args:
        ranks: (B, T) from `target_ranks`. num_targets: (B,) how many of them are real. ks: cutoffs.

    Returns:
        (B,) float32 tensors under "hit_rate@k", "ndcg@k", "recall@k", "mrr@k", "map@k".
    """
    ranks = ranks.sort(1).values  # padding last: its rank is the largest
    nth = torch.arange(1, ranks.shape[1] + 1, device=ranks.device)  # 1 for a user's best-ranked target
    gain = 1 / torch.log2(ranks + 2.0)
    ideal = (1 / torch.log2(nth + 1.0)).cumsum(0)
    result: dict[str, Tensor] = {}
    for k in ks:
        hit = (ranks < k) & (nth <= num_targets[:, None])
        possible = num_targets.clamp(max=k)
        result[f"hit_rate@{k}"] = hit.any(1).float()
        result[f"ndcg@{k}"] = (gain * hit).sum(1) / ideal[possible - 1]
        result[f"recall@{k}"] = hit.sum(1) / num_targets
        result[f"mrr@{k}"] = hit[:, 0] / (ranks[:, 0] + 1.0)
        result[f"map@{k}"] = (hit * nth / (ranks + 1.0)).sum(1) / possible
    return result


def cold_metrics(
    ranks: Tensor, list_ranks: Tensor, counts: Tensor, k: int
) -> tuple[dict[str, Tensor], dict[str, float]]:
    """How well targets without any training interaction are found.

    Args:
        ranks: (U, T) of the cold targets among all items. list_ranks: (U, T) among cold items alone.
        counts: (U,) how many cold targets a user has. k: cutoff.

    Returns:
        (U,) recall and NDCG at k of both, NaN for users without a cold target, and the means over the others with
        their number; empty where nobody has one.
    """
    has = counts > 0
    if not bool(has.any()):
        return {}, {}
    per_user: dict[str, Tensor] = {}
    for name, of in (("cold", ranks), ("cold_list", list_ranks)):
        metrics = ranking_metrics(of[has], counts[has], (k,))
        for metric in (f"recall@{k}", f"ndcg@{k}"):
            per_user[f"{name}_{metric}"] = torch.full(counts.shape, torch.nan, device=counts.device)
            per_user[f"{name}_{metric}"][has] = metrics[metric]
    means = {name: float(value.double().nanmean()) for name, value in per_user.items()}
    return per_user, {**means, "cold_users": float(has.sum())}
