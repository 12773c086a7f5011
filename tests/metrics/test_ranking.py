"""Ranking metrics against a table worked by hand and against brute force."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from msmrec.metrics.ranking import ranking_metrics, target_ranks


def test_hand_worked_single_target() -> None:
    scores = torch.tensor([[-torch.inf, 0.9, 0.5, 0.1], [-torch.inf, 0.9, 0.5, 0.1], [-torch.inf, 0.9, 0.5, 0.1]])
    ranks = target_ranks(scores, torch.tensor([[1], [2], [3]]))
    assert ranks.tolist() == [[0], [1], [2]]
    metrics = ranking_metrics(ranks, torch.ones(3, dtype=torch.long), [1, 2])
    assert metrics["hit_rate@1"].tolist() == [1, 0, 0]
    assert metrics["hit_rate@2"].tolist() == [1, 1, 0]
    assert metrics["ndcg@2"].tolist() == pytest.approx([1, 1 / math.log2(3), 0])
    assert metrics["mrr@2"].tolist() == pytest.approx([1, 0.5, 0])


def test_hand_worked_two_targets() -> None:
    # order by score: items 1, 2, 3, 4; targets 2 and 4 stand at ranks 1 and 3
    scores = torch.tensor([[-torch.inf, 4.0, 3.0, 2.0, 1.0]])
    ranks = target_ranks(scores, torch.tensor([[4, 2, 0]]))
    assert ranks[0, :2].tolist() == [3, 1]
    metrics = ranking_metrics(ranks, torch.tensor([2]), [2, 4])
    ideal = 1 + 1 / math.log2(3)
    assert metrics["recall@2"].item() == 0.5
    assert metrics["map@4"].item() == pytest.approx((1 / 2 + 2 / 4) / 2)
    assert metrics["ndcg@4"].item() == pytest.approx((1 / math.log2(3) + 1 / math.log2(5)) / ideal)
    assert metrics["mrr@4"].item() == 0.5


@pytest.mark.parametrize("value", [0.0, float("nan")])
def test_constant_or_broken_scores_are_no_hits(value: float) -> None:
    scores = torch.full((1, 50), value)
    metrics = ranking_metrics(target_ranks(scores, torch.tensor([[7]])), torch.tensor([1]), [10])
    assert metrics["hit_rate@10"].item() == 0


def test_against_brute_force() -> None:
    rng = np.random.default_rng(0)
    scores = torch.from_numpy(rng.integers(0, 30, (40, 60)).astype(np.float32))  # many ties
    scores[:, 0] = -torch.inf
    counts = rng.integers(1, 6, 40)
    targets = torch.zeros(40, 5, dtype=torch.long)
    for row, count in enumerate(counts):
        targets[row, :count] = torch.from_numpy(rng.choice(np.arange(1, 60), count, replace=False))
    metrics = ranking_metrics(target_ranks(scores, targets), torch.from_numpy(counts), [10])
    for row, count in enumerate(counts):
        wanted = set(targets[row, :count].tolist())
        # among equal scores a target comes last
        order = sorted(range(1, 60), key=lambda i: (-scores[row, i].item(), i in wanted))
        hits = [i in wanted for i in order[:10]]
        dcg = sum(hit / math.log2(place + 2) for place, hit in enumerate(hits))
        best = sum(1 / math.log2(place + 2) for place in range(min(count, 10)))
        precision = [sum(hits[: place + 1]) / (place + 1) for place, hit in enumerate(hits) if hit]
        assert metrics["ndcg@10"][row].item() == pytest.approx(dcg / best, abs=1e-6)
        assert metrics["recall@10"][row].item() == pytest.approx(sum(hits) / count)
        assert metrics["hit_rate@10"][row].item() == any(hits)
        assert metrics["map@10"][row].item() == pytest.approx(sum(precision) / min(count, 10), abs=1e-6)
        assert metrics["mrr@10"][row].item() == pytest.approx(1 / (hits.index(True) + 1) if any(hits) else 0)


@pytest.mark.parametrize("kind", ["ties", "floats", "broken", "constant"])
def test_ranks_of_many_targets_are_those_of_few(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    scores = torch.from_numpy(rng.integers(0, 20, (30, 200)).astype(np.float32))
    if kind == "floats":
        scores = torch.from_numpy(rng.normal(size=(30, 200)))
    if kind == "constant":
        scores[:] = 0
    if kind == "broken":
        for value in (torch.nan, torch.inf, -torch.inf):
            scores[torch.from_numpy(rng.random((30, 200)) < 0.1)] = value
    scores[:, 0] = -torch.inf
    targets = torch.zeros(30, 60, dtype=torch.long)
    for row, count in enumerate(rng.integers(0, 61, 30)):
        targets[row, :count] = torch.from_numpy(rng.choice(np.arange(1, 200), count, replace=False))
    sorted_ranks = target_ranks(scores, targets)
    monkeypatch.setattr("msmrec.metrics.ranking.MANY_TARGETS", 60)
    assert torch.equal(sorted_ranks, target_ranks(scores, targets))


def test_many_targets_take_one_sort_and_no_square() -> None:
    sizes: list[int] = []

    class Sizes(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            made = func(*args, **(kwargs or {}))
            sizes.extend(
                x.numel() for x in (made if isinstance(made, tuple) else (made,)) if isinstance(x, torch.Tensor)
            )
            return made

    scores, targets = torch.randn(4, 3000), torch.arange(1, 1001).expand(4, -1)
    with Sizes():
        target_ranks(scores, targets)
    assert len(sizes) < 50 and max(sizes) == 4 * 3000
