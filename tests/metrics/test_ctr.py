"""Click metrics against scikit-learn and tables worked by hand."""

import math

import numpy as np
import pytest
import torch
from sklearn.metrics import log_loss, roc_auc_score

from msmrec.metrics.ctr import best_threshold, ctr_metrics, user_auc
from msmrec.models.click import ClickModule


def test_by_hand() -> None:
    probs = torch.tensor([0.9, 0.2, 0.6, 0.6, 0.1, 0.7])
    label = torch.tensor([1.0, 0.0, 1.0, 0.0, 1.0, 1.0])
    user = torch.tensor([7, 7, 3, 3, 3, 5])
    per_user = user_auc(probs, label, user)
    assert per_user.user_id.tolist() == [3, 5, 7] and per_user.samples.tolist() == [3, 1, 2]
    assert per_user.clicks.tolist() == [2, 1, 1]
    # User 3: click .6 ties with the other (1/2), click .1 loses (0): mean .25. User 5 has no pair. User 7: 1.
    assert per_user.auc[0] == 0.25 and per_user.auc[1].isnan() and per_user.auc[2] == 1.0
    metrics = ctr_metrics(probs, label, per_user, torch.tensor(0.65))
    assert metrics["user_auc"] == pytest.approx((0.25 * 3 + 1.0 * 2) / 5)
    assert metrics["accuracy"] == pytest.approx(4 / 6) and metrics["accuracy_calibrated"] == pytest.approx(4 / 6)
    assert metrics["click_rate"] == pytest.approx(4 / 6)
    assert metrics["auc"] == pytest.approx(roc_auc_score(label, probs))


def test_without_a_user_who_has_both_labels_there_is_no_user_auc() -> None:
    probs, label = torch.tensor([0.9, 0.2, 0.6]), torch.tensor([1.0, 0.0, 1.0])
    assert "user_auc" not in ctr_metrics(
        probs, label, user_auc(probs, label, torch.tensor([1, 2, 3])), torch.tensor(0.5)
    )


@pytest.mark.parametrize("click", [0.0, 1.0])
def test_without_both_labels_there_is_no_auc(click: float) -> None:
    probs, label = torch.tensor([0.9, 0.2]), torch.full((2,), click)
    metrics = ctr_metrics(probs, label, user_auc(probs, label, torch.tensor([1, 1])), torch.tensor(0.5))
    assert math.isnan(metrics["auc"]) and metrics["accuracy"] == 0.5


def test_against_scikit_learn() -> None:
    generator = torch.Generator().manual_seed(0)
    probs = (torch.rand(2000, generator=generator) * 20).round() / 20  # many ties
    label = (torch.rand(2000, generator=generator) < probs).float()
    user = torch.randint(0, 50, (2000,), generator=generator)
    per_user = user_auc(probs, label, user)
    for k in range(50):
        mine = user == per_user.user_id[k]
        assert per_user.auc[k].item() == pytest.approx(roc_auc_score(label[mine], probs[mine]))
    metrics = ctr_metrics(probs, label, per_user, torch.tensor(0.5))
    assert metrics["auc"] == pytest.approx(roc_auc_score(label, probs), abs=1e-6)
    assert metrics["log_loss"] == pytest.approx(log_loss(label, probs.double().clamp(1e-15, 1 - 1e-15)), rel=1e-6)
    assert metrics["ece"] < 0.05  # labels were drawn with these probabilities
    near = 0.41 + probs / 5  # 0.41 to 0.61, no number on the edge of a bin
    squeezed = ctr_metrics(near, label, per_user, torch.tensor(0.5))
    off = (near - label).numpy()
    gaps = [abs(off[near.numpy() * 15 // 1 == k].sum()) for k in range(15)]
    assert squeezed["ece"] == pytest.approx(sum(gaps) / 2000, rel=1e-4) and squeezed["ece"] > 0.15
    assert squeezed["auc"] == pytest.approx(metrics["auc"])


def test_threshold_is_the_best_one() -> None:
    generator = torch.Generator().manual_seed(1)
    probs = (torch.rand(300, generator=generator) * 30).round() / 60
    label = (torch.rand(300, generator=generator) < probs * 2).float()
    threshold = best_threshold(probs, label)
    accuracy = [float(((probs > t) == (label > 0.5)).double().mean()) for t in np.linspace(0, 1, 241)]
    assert float(((probs > threshold) == (label > 0.5)).double().mean()) == pytest.approx(max(accuracy))
    assert best_threshold(torch.tensor([0.75, 0.25, 0.5]), torch.tensor([1.0, 0.0, 0.0])) == 0.625  # midway
    assert best_threshold(torch.full((4,), 0.3), torch.ones(4)) < 0.3  # all clicks
    assert best_threshold(torch.full((4,), 0.3), torch.zeros(4)) > 0.3
    assert best_threshold(torch.tensor([0.0, 0.0, 1.0]), torch.ones(3)) < 0  # all clicks, those of probability 0 too
    sure = 1 - 1e-9 * torch.rand(200, generator=generator, dtype=torch.float64)  # float32 takes them all for 1
    label = (torch.arange(200) >= 100).float()
    threshold = best_threshold(sure.sort().values, label)
    module = ClickModule()
    module.threshold.copy_(threshold)
    assert module.threshold.item() == threshold.item() < sure.max()
