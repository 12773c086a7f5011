"""The bootstrap against plain loops, and what its intervals and tests promise, on simulated users."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from msmrec.evaluation.statistics import (
    Auc,
    Means,
    bootstrap,
    holm,
    interval,
    ordered_pairs,
    paired_p,
    resamples,
)


def means(values: np.ndarray) -> Means:
    return Means(values, np.ones_like(values))


def test_means_equal_a_loop_over_drawn_users() -> None:
    rng = np.random.default_rng(0)
    numerator, denominator = rng.random((40, 2)), rng.integers(1, 9, (40, 2)).astype(float)
    (values,) = bootstrap([Means(numerator, denominator)], users=40, number=300, seed=3)
    weights = np.concatenate(list(resamples(40, 300, seed=3)))
    assert values.shape == (300, 2) and (weights.sum(1) == 40).all()
    for row, weight in zip(values, weights, strict=True):
        drawn = [user for user, times in enumerate(weight) for _ in range(int(times))]
        expected = [sum(numerator[u, c] for u in drawn) / sum(denominator[u, c] for u in drawn) for c in (0, 1)]
        assert row == pytest.approx(expected)


def test_weights_are_multinomial() -> None:
    weights = np.concatenate(list(resamples(50, 2000, seed=0)))
    assert weights.mean() == 1 and weights.var() == pytest.approx(1 - 1 / 50, rel=0.03)
    assert np.corrcoef(weights[:, 0], weights[:, 1])[0, 1] == pytest.approx(-1 / 49, abs=0.07)


def test_auc_equals_the_auc_of_the_drawn_samples() -> None:
    rng = np.random.default_rng(1)
    user = rng.integers(0, 12, 3000)
    clicked = rng.random(3000) < 0.4
    prob = np.round(rng.random(3000) * 0.8 + 0.2 * clicked, 3)  # rounded, so that many tie
    clicks = np.bincount(user, clicked, 12)
    pairs = ordered_pairs(user, clicked, prob, 12)
    assert pairs.sum() / (clicked.sum() * (~clicked).sum()) == pytest.approx(roc_auc_score(clicked, prob))
    made = Auc([pairs], clicks, np.bincount(user, minlength=12) - clicks)
    (values,) = bootstrap([made], users=12, number=20, seed=0)
    for value, weight in zip(values[:, 0], np.concatenate(list(resamples(12, 20, seed=0))), strict=True):
        assert value == pytest.approx(roc_auc_score(clicked, prob, sample_weight=weight[user]), abs=1e-6)


def test_pairs_over_several_blocks_of_levels() -> None:
    rng = np.random.default_rng(2)
    user, clicked, prob = rng.integers(0, 5, 6000), rng.random(6000) < 0.5, rng.random(6000)
    expected = np.zeros((5, 5))
    for u in range(5):
        for v in range(5):
            a, b = prob[(user == u) & clicked], prob[(user == v) & ~clicked]
            expected[u, v] = (a[:, None] > b).sum()
    assert (ordered_pairs(user, clicked, prob, 5) == expected).all()


def test_interval_is_the_normal_one_for_many_users() -> None:
    values = np.random.default_rng(0).exponential(size=(3000, 1))
    (draws,) = bootstrap([means(values)], users=3000, number=4000, seed=1)
    error = values.std() / np.sqrt(3000)
    low, high = interval(draws[:, 0])
    assert low == pytest.approx(values.mean() - 1.96 * error, abs=0.15 * error)
    assert high == pytest.approx(values.mean() + 1.96 * error, abs=0.15 * error)


def simulated_p(gain: float, experiments: int = 600, users: int = 300) -> np.ndarray:
    """p of experiments in which a second model hits with a probability higher by `gain`, for the same users."""
    rng = np.random.default_rng(5)
    easy = rng.beta(1, 2, (users, experiments)) * 0.8  # hits of both models go with the user
    a, b = (rng.random(easy.shape) < easy).astype(float), (rng.random(easy.shape) < easy + gain).astype(float)
    draws = bootstrap([means(a), means(b)], users, number=1000, seed=0)
    return np.array([paired_p(difference) for difference in (draws[1] - draws[0]).T])


def test_equal_models_differ_in_one_of_twenty_tables() -> None:
    assert (simulated_p(0.0) < 0.05).mean() == pytest.approx(0.05, abs=0.025)


def test_unequal_models_are_told_apart() -> None:
    assert (simulated_p(0.12) < 0.05).mean() > 0.9
    assert 0.1 < (simulated_p(0.04) < 0.05).mean() < 0.6  # and a small gain is often missed


def test_paired_p_by_hand() -> None:
    assert paired_p(np.array([-1.0, *[1.0] * 8])) == pytest.approx(2 * 2 / 10)
    assert paired_p(np.ones(999)) == pytest.approx(2 / 1000)  # never 0
    assert paired_p(np.zeros(99)) == 1


def test_holm_by_hand() -> None:
    # sorted .005 .01 .03 .04, times 4 3 2 1: .02 .03 .06 .04, and none below the one before it
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.7]).tolist() == [1, 1] and holm([]).tolist() == []
