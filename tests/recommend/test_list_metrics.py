"""Metrics of given lists are those that a ranking model's evaluation gives of the same lists."""

from pathlib import Path

import numpy as np
import pytest
import torch

from msmrec.columns import TEST, VAL
from msmrec.data.catalogue import catalogue_of, genre_tastes
from msmrec.data.prepare import Dataset, SplitProtocol, prepare
from msmrec.data.sources.simulated import Simulated
from msmrec.metrics.beyond_accuracy import TIERS
from msmrec.recommend.list_metrics import LISTED, list_metrics, targets_of

TINY = Simulated(num_users=120, num_items=60, mean_interactions=14, num_modalities=3, num_aspects=4)


@pytest.fixture(scope="module")
def hidden(tiny_root: Path, cache: Path) -> Dataset:
    """Several targets a user, some of them cold."""
    protocol = SplitProtocol(split="user_ratio", ratios=(0.4, 0.2, 0.4), hidden_items=0.3)
    return prepare(TINY, tiny_root, cache, protocol)


@pytest.mark.parametrize("split", [VAL, TEST])
def test_against_loops(hidden: Dataset, split: int) -> None:
    rng = np.random.default_rng(0)
    catalogue = catalogue_of(hidden, torch.device("cpu"))
    tier = catalogue.tier.numpy()
    cold = np.flatnonzero(tier == TIERS.index("cold"))
    users = np.flatnonzero(hidden.ends[split] > hidden.ends[split - 1])
    lists = np.stack([rng.permutation(np.arange(1, hidden.num_items + 1))[:20] for _ in users])
    lists[::3, 15:] = 0
    cold_lists = np.stack([rng.permutation(cold)[:LISTED] for _ in users])
    targets = targets_of(hidden, users, split, tier)
    taste = genre_tastes(hidden, catalogue.genres, split)[users]
    per_user, overall = list_metrics(lists, cold_lists, targets, catalogue, taste, (5, 20))
    expected: dict[str, list[float]] = {}
    for row, user in enumerate(users):
        wanted = set(hidden.item_id[hidden.ends[split - 1][user] : hidden.ends[split][user]].tolist())
        wanted_cold = wanted & set(cold.tolist())
        mine = {
            "recall@5": len(wanted & set(lists[row, :5])) / len(wanted),
            "retrieval_recall@20": len(wanted & set(lists[row])) / len(wanted),
            "cold_recall@10": len(wanted_cold & set(lists[row, :10])) / len(wanted_cold) if wanted_cold else np.nan,
            "cold_list_recall@10": len(wanted_cold & set(cold_lists[row])) / len(wanted_cold)
            if wanted_cold
            else np.nan,
        }
        for name, value in mine.items():
            expected.setdefault(name, []).append(value)
    if split == VAL:  # hidden items have no validation ratings
        del expected["cold_recall@10"], expected["cold_list_recall@10"]
    assert ("cold_users" in overall) == (split == TEST)
    for name, values in expected.items():
        np.testing.assert_allclose(per_user[name], values, rtol=1e-6, err_msg=name)
        assert overall[name] == pytest.approx(np.nanmean(values)) and 0 < overall[name] < 1
