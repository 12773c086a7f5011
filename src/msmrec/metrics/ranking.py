"""Ranking metrics from ranks, on the device, no loop over users.

A rank is how many items stand before the target: 0 is best. Ties never help: an item with the target's score stands
before it, and so does one whose score is NaN, so constant or broken scores are never hits.
"""

from collections.abc import Sequence

import torch
from torch import Tensor


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
    # How many items are not worse; T is 1 in leave-one-out, so the loop over columns is short.
    not_worse = torch.stack([(~(scores < column[:, None])).sum(1) for column in value.unbind(1)], 1)
    rank = not_worse - 1
    if target_item.shape[1] > 1:
        # Targets do not push each other down beyond their own order: take out all of them, put back those before.
        other = (~(value[:, None, :] < value[:, :, None]) & real[:, None, :]).sum(2)  # targets not worse, self included
        place = torch.argsort(
            torch.argsort(value.masked_fill(~real, -torch.inf), descending=True, stable=True), stable=True
        )
        rank = not_worse - other + place
    return rank.masked_fill(~real, scores.shape[1])


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
