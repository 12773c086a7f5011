"""What matters of a list besides being right: is it novel, diverse, fair to items, true to the user's taste?

Everything is read from lists (U, K) of item ids, best first, 0 where a list is shorter. What a list does not determine
(the diversity of one item, the novelty of none) is NaN for that user, and left out of means that say so.
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

TIERS = ("head", "mid", "tail", "cold")
ALPHA = 0.01  # of `calibration`: how much of the history's genres is mixed into the list's, so that none is 0


class Catalogue(NamedTuple):
    """What is known of the items before anything is recommended; row 0 is the padding."""

    popularity: Tensor  # (N + 1,) training interactions
    tier: Tensor  # (N + 1,) int64, places in TIERS
    genres: Tensor  # (N + 1, G) float32: 1 over the number of the item's genres at each of them; G is 0 without genres


def _mean_over_list(values: Tensor, lists: Tensor) -> Tensor:
    """(U,) means of (U, K) values where there is an item; NaN for an empty list."""
    real = lists > 0
    return (values * real).sum(1) / real.sum(1)


def novelty(lists: Tensor, count: Tensor) -> Tensor:
    """(U,) mean over the list of -log2(the item's share of all training interactions).

    An item without training interactions counts as one with a single one, which is the most novel that can be.
    """
    surprise = math.log2(max(float(count.sum()), 1.0)) - torch.log2(count.clamp(min=1).double())
    return _mean_over_list(surprise[lists], lists)


def diversity(lists: Tensor, vectors: Tensor) -> Tensor:
    """(U,) 1 - mean cosine of the pairs of the list's items; items with a zero vector are in no pair.

    Args:
        lists: (U, K). vectors: (N + 1, D) of any length, row 0 zero.
    """
    unit = F.normalize(vectors.float(), dim=1)
    total = F.embedding_bag(lists, unit, mode="sum")  # |sum of n unit vectors|^2 = n + the cosines of all ordered pairs
    n = unit.any(1)[lists].sum(1)
    return 1 - (total.square().sum(1) - n) / (n * (n - 1))


def tier_shares(lists: Tensor, tier: Tensor) -> Tensor:
    """(U, 4) shares of the list's items that are head, mid, tail and cold."""
    real = (lists > 0)[:, :, None]
    return (F.one_hot(tier[lists], len(TIERS)) * real).sum(1) / real.sum(1)


def coverage(lists: Tensor, num_items: int) -> float:
    """Share of the catalogue that stands in at least one list."""
    return len(torch.unique(lists[lists > 0])) / num_items


def gini(lists: Tensor, num_items: int) -> float:
    """Gini coefficient of how often items are recommended: 0 all equally, near 1 always the same few.

    G = sum_i (2 i - N - 1) x_i / (N sum x), x ascending, items that are never recommended included.
    """
    x = torch.bincount(lists[lists > 0], minlength=num_items + 1)[1:].double().sort().values
    i = torch.arange(1, num_items + 1, device=x.device)
    return float(((2 * i - num_items - 1) * x).sum() / (num_items * x.sum()))


def exposure_balance(lists: Tensor, num_items: int) -> float:
    """Entropy of the items' shares of exposure over its largest value, log N: 1 all equally, 0 all on one item.

    A place in a list exposes its item by 1 / log2(place + 1) (Singh and Joachims 2018), so the top counts more.
    """
    if num_items < 2:
        return 1.0
    places = torch.arange(1, lists.shape[1] + 1, device=lists.device, dtype=torch.double)
    weight = (1 / torch.log2(places + 1)) * (lists > 0)
    total = torch.zeros(num_items + 1, dtype=torch.double, device=lists.device)
    # Summed on the CPU in one order: the last digit of an atomic sum on a GPU changes from run to run.
    total = total.cpu().index_add_(0, lists.flatten().cpu(), weight.flatten().cpu())[1:]
    share = total / total.sum()
    return float(-torch.xlogy(share, share).sum() / math.log(num_items))


def calibration(lists: Tensor, genres: Tensor, taste: Tensor) -> Tensor:
    """(U,) how far the genres of the list are from those of the user's history, C_KL of Steck (2018); 0 is the same.

    KL(p || (1 - ALPHA) q + ALPHA p), with p the genres of the history, q those of the list, both means over items of
    p(g | i); natural logarithm. Items without genres count in neither.

    Args:
        lists: (U, K). genres: (N + 1, G), rows sum to 1 or 0. taste: (U, G) p, rows sum to 1, or to 0 where unknown.
    """
    total = F.embedding_bag(lists, genres, mode="sum").double()
    q = total / total.sum(1, keepdim=True)
    p = taste.double()
    divergence = (torch.xlogy(p, p) - torch.xlogy(p, (1 - ALPHA) * q + ALPHA * p)).sum(1)
    return torch.where(p.sum(1) > 0, divergence, torch.nan)


def list_measures(lists: Tensor, catalogue: Catalogue, taste: Tensor) -> tuple[dict[str, Tensor], dict[str, float]]:
    """All measures of a set of lists.

    Args:
        lists: (U, K). catalogue: of N items. taste: (U, G) genres of each user's history.

    Returns:
        (U,) float32 measures of each user's list, and the measures of all lists: means over the users that have one,
        with the number of those that have none where there are such, and what only all lists together have. Names end
        in @K.
    """
    num_items, k = len(catalogue.popularity) - 1, lists.shape[1]
    shares = tier_shares(lists, catalogue.tier)
    tail = TIERS.index("tail")
    per_user = {"novelty": novelty(lists, catalogue.popularity), "tail_fraction": shares[:, tail:].sum(1)}
    if catalogue.genres.shape[1]:
        per_user["diversity"] = diversity(lists, catalogue.genres)
        per_user["calibration"] = calibration(lists, catalogue.genres, taste)
    overall = {name: float(value.double().nanmean()) for name, value in per_user.items()}
    for name, value in per_user.items():
        if missing := int(value.isnan().sum()):
            overall[f"{name}_undefined"] = float(missing)
    overall |= {f"{tier}_share": float(shares[:, t].double().nanmean()) for t, tier in enumerate(TIERS)}
    overall["coverage"] = coverage(lists, num_items)
    if bool((lists > 0).any()):
        overall |= {"gini": gini(lists, num_items), "exposure": exposure_balance(lists, num_items)}
    return (
        {f"{name}@{k}": value.float() for name, value in per_user.items()},
        {f"{name}@{k}": value for name, value in overall.items()},
    )
