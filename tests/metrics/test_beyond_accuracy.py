"""Measures of lists against tables worked by hand, and against plain loops on random lists."""

import itertools
import math

import numpy as np
import pytest
import torch

from msmrec.metrics.beyond_accuracy import (
    Catalogue,
    calibration,
    coverage,
    diversity,
    exposure_balance,
    gini,
    list_measures,
    novelty,
    tier_shares,
)

# Items 1 to 5 with 8, 4, 2, 2 and 0 training interactions, of 16; user 2's list has one item, user 3's none.
LISTS = torch.tensor([[1, 5], [3, 0], [0, 0]])
COUNT = torch.tensor([0, 8, 4, 2, 2, 0])
TIER = torch.tensor([0, 0, 1, 2, 2, 3])
GENRES = torch.tensor([[0, 0], [1, 0], [0.5, 0.5], [0, 1], [0, 0], [0.5, 0.5]])


def values(found: torch.Tensor) -> list[float]:
    return found.double().nan_to_num(-9).tolist()


def test_novelty_by_hand() -> None:
    # -log2(8/16) = 1; item 5 has none and counts as 1/16: 4; -log2(2/16) = 3
    assert values(novelty(LISTS, COUNT)) == pytest.approx([2.5, 3, -9])


def test_diversity_by_hand() -> None:
    # cos((1, 0), (.5, .5)) = 1/sqrt 2; one item has no pair
    assert values(diversity(LISTS, GENRES)) == pytest.approx([1 - 1 / math.sqrt(2), -9, -9], abs=1e-6)
    # items 1 and 3 are orthogonal, each at 45 degrees to 5; item 4 has no genre and is in no pair
    three = torch.tensor([[1, 3, 5, 4]])
    assert values(diversity(three, GENRES)) == pytest.approx([1 - (0 + 2 / math.sqrt(2)) / 3], abs=1e-6)
    assert values(diversity(torch.tensor([[3, 3]]), GENRES)) == pytest.approx([0], abs=1e-6)
    assert values(diversity(torch.tensor([[1, 2]]), torch.tensor([[0.0], [2], [-1]]))) == [2]  # opposite


def test_tiers_and_coverage_by_hand() -> None:
    assert tier_shares(LISTS, TIER)[:2].tolist() == [[0.5, 0, 0, 0.5], [0, 0, 1, 0]]
    assert coverage(LISTS, 5) == 3 / 5


def test_gini_and_exposure_by_hand() -> None:
    # recommended 3, 1 and 0 times: (2*1-4)*0 + (2*2-4)*1 + (2*3-4)*3 = 6, over 3 * 4
    lists = torch.tensor([[1, 2], [1, 0], [1, 0]])
    assert gini(lists, 3) == pytest.approx(0.5)
    # exposure: item 1 three times 1, item 2 once 1/log2(3)
    second = 1 / math.log2(3)
    shares = [3 / (3 + second), second / (3 + second)]
    assert exposure_balance(lists, 3) == pytest.approx(-sum(s * math.log(s) for s in shares) / math.log(3))
    everything = torch.tensor([[1], [2], [3]])
    assert gini(everything, 3) == pytest.approx(0) and exposure_balance(everything, 3) == pytest.approx(1)
    alone = torch.tensor([[2], [2]])
    assert gini(alone, 3) == pytest.approx(2 / 3) and exposure_balance(alone, 3) == 0
    assert exposure_balance(torch.tensor([[1], [1]]), 1) == 1  # of one item: as even as can be


def test_calibration_by_hand() -> None:
    # history 3/4, 1/4; list of item 1: (1, 0), smoothed with .01
    lists, taste = torch.tensor([[1, 4], [1, 3], [1, 3]]), torch.tensor([[0.75, 0.25], [0.5, 0.5], [0, 0]])
    first = 0.75 * math.log(0.75 / (0.99 + 0.0075)) + 0.25 * math.log(0.25 / 0.0025)
    assert values(calibration(lists, GENRES, taste)) == pytest.approx([first, 0, -9], abs=1e-6)


def test_against_plain_loops() -> None:
    rng = np.random.default_rng(0)
    users, num_items, k, num_genres = 30, 40, 6, 5
    lists = np.stack([rng.permutation(np.arange(1, num_items + 1))[:k] for _ in range(users)])
    for row in lists[::4]:
        row[rng.integers(2, k) :] = 0
    count = np.concatenate([[0], rng.integers(0, 50, num_items)])
    genres = (rng.random((num_items + 1, num_genres)) < 0.4).astype(np.float32)
    genres[0] = 0
    genres /= np.maximum(genres.sum(1, keepdims=True), 1)
    taste = rng.dirichlet(np.ones(num_genres), users).astype(np.float32)
    tier = np.concatenate([[0], rng.integers(0, 4, num_items)])
    catalogue = Catalogue(torch.from_numpy(count), torch.from_numpy(tier), torch.from_numpy(genres))
    per_user, overall = list_measures(torch.from_numpy(lists), catalogue, torch.from_numpy(taste))

    times, exposure = np.zeros(num_items + 1), np.zeros(num_items + 1)
    for u, row in enumerate(lists):
        items = [i for i in row if i]
        for place, i in enumerate(items):
            times[i] += 1
            exposure[i] += 1 / math.log2(place + 2)
        expected = {
            "novelty": np.mean([-math.log2(max(count[i], 1) / count.sum()) for i in items]),
            "tail_fraction": np.mean([tier[i] >= 2 for i in items]),
        }
        with_genres = [genres[i] for i in items if genres[i].any()]
        pairs = [a @ b / np.linalg.norm(a) / np.linalg.norm(b) for a, b in itertools.combinations(with_genres, 2)]
        expected["diversity"] = 1 - np.mean(pairs)
        q = np.mean(with_genres, axis=0)
        p = taste[u]
        expected["calibration"] = sum(
            p[g] * math.log(p[g] / (0.99 * q[g] + 0.01 * p[g])) for g in range(num_genres) if p[g]
        )
        for name, value in expected.items():
            assert per_user[f"{name}@{k}"][u].item() == pytest.approx(value, abs=1e-5), name
    x = times[1:]
    between = sum(abs(a - b) for a in x for b in x) / (2 * num_items * x.sum())
    shares = exposure[1:] / exposure.sum()
    assert overall[f"gini@{k}"] == pytest.approx(between)
    assert overall[f"exposure@{k}"] == pytest.approx(-sum(s * math.log(s) for s in shares if s) / math.log(num_items))
    assert overall[f"coverage@{k}"] == pytest.approx((x > 0).mean())
    assert sum(overall[f"{t}_share@{k}"] for t in ("head", "mid", "tail", "cold")) == pytest.approx(1)
    assert overall[f"novelty@{k}"] == pytest.approx(per_user[f"novelty@{k}"].mean().item(), abs=1e-5)


def test_what_is_undefined_is_counted_and_left_out() -> None:
    catalogue = Catalogue(COUNT, TIER, GENRES)
    _, overall = list_measures(LISTS, catalogue, torch.tensor([[0.5, 0.5], [0, 1], [1, 0]]))
    assert overall["diversity_undefined@2"] == 2 and overall["novelty_undefined@2"] == 1
    assert overall["diversity@2"] == pytest.approx(1 - 1 / math.sqrt(2), abs=1e-6)
    assert overall["novelty@2"] == pytest.approx(2.75)
    assert [overall[f"{tier}_share@2"] for tier in ("head", "mid", "tail", "cold")] == [0.25, 0, 0.5, 0.25]
    without = Catalogue(COUNT, TIER, GENRES[:, :0])
    assert not {"diversity@2", "calibration@2"} & set(list_measures(LISTS, without, GENRES[:3, :0])[1])
    _, of_none = list_measures(torch.zeros_like(LISTS), catalogue, GENRES[:3])
    assert of_none["coverage@2"] == 0 and not {"gini@2", "exposure@2"} & set(of_none)
