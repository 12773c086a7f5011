"""Metrics of click probabilities: AUC, log loss, accuracy, AUC inside users, calibration; on the device."""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics.functional.classification import binary_auroc, binary_calibration_error


class UserAuc(NamedTuple):
    """One row a user, ordered by user_id."""

    user_id: Tensor  # (U,)
    samples: Tensor  # (U,)
    clicks: Tensor  # (U,)
    auc: Tensor  # (U,) NaN where a user has only clicks or only non-clicks


def user_auc(probs: Tensor, label: Tensor, user_id: Tensor) -> UserAuc:
    """AUC of each user's own samples, from rank sums; ties count one half.

    Args:
        probs: (S,). label: (S,) 0 or 1. user_id: (S,).
    """
    users, user = torch.unique(user_id, return_inverse=True)  # sorted
    order = torch.argsort(probs, stable=True)
    order = order[torch.argsort(user[order], stable=True)]  # by user, then by probability
    user, value, click = user[order], probs[order], label[order].double()
    place = torch.arange(len(user), device=user.device, dtype=torch.float64)
    # Equal probabilities of one user share the mean of their places.
    new = torch.ones(len(user), dtype=torch.bool, device=user.device)
    new[1:] = (user[1:] != user[:-1]) | (value[1:] != value[:-1])
    tie = new.cumsum(0) - 1
    size = torch.bincount(tie).double()
    place = (torch.zeros_like(size).index_add_(0, tie, place) / size)[tie]
    samples = torch.bincount(user).double()
    first = (samples.cumsum(0) - samples)[user]  # place at which the user's samples begin
    clicks = torch.zeros_like(samples).index_add_(0, user, click)
    rank_sum = torch.zeros_like(samples).index_add_(0, user, click * (place - first + 1))
    others = samples - clicks
    auc = (rank_sum - clicks * (clicks + 1) / 2) / (clicks * others)  # 0 / 0 is NaN: no pair to order
    return UserAuc(users, samples.long(), clicks.long(), auc)


def best_threshold(probs: Tensor, label: Tensor) -> Tensor:
    """() The probability from which on calling it a click gives the highest accuracy on these samples."""
    value, order = torch.sort(probs, stable=True)
    click = label[order].double()
    # Cut before place k: samples below are called no click. Only where the probability changes is a cut possible.
    right = torch.cat([click.new_zeros(1), (1 - click).cumsum(0)]) + click.sum() - torch.cat(
        [click.new_zeros(1), click.cumsum(0)]
    )  # fmt: skip
    possible = torch.ones_like(right, dtype=torch.bool)
    possible[1:-1] = value[1:] != value[:-1]
    cut = right.masked_fill(~possible, -1).argmax()
    # Below all of them all are clicks, those of probability 0 too.
    edges = torch.cat([value.new_full((1,), -1.0), value[:-1] + (value[1:] - value[:-1]) / 2, value.new_ones(1)])
    return edges[cut]


def ctr_metrics(probs: Tensor, label: Tensor, per_user: UserAuc, threshold: Tensor) -> dict[str, float]:
    """Metrics over all samples.

    Args:
        probs: (S,) probability of a click. label: (S,) 0 or 1. per_user: from `user_auc`.
        threshold: (), fitted on validation, for `accuracy_calibrated`.

    Returns:
        auc (NaN where all are clicks or none), log_loss (nats), accuracy (at 0.5), accuracy_calibrated, ece (expected
        calibration error over 15 bins), click_rate, and user_auc (mean over users who have both labels, weighted by
        their samples) where there are any.
    """
    clicked = label > 0.5
    valid = ~per_user.auc.isnan()
    weight = per_user.samples[valid].double()
    metrics = {
        "auc": float(binary_auroc(probs, clicked.long())) if 0 < int(clicked.sum()) < len(clicked) else math.nan,
        "log_loss": float(F.binary_cross_entropy(probs.double().clamp(1e-15, 1 - 1e-15), clicked.double())),
        "accuracy": float(((probs > 0.5) == clicked).double().mean()),
        "accuracy_calibrated": float(((probs > threshold) == clicked).double().mean()),
        "ece": float(binary_calibration_error(probs, clicked.long(), n_bins=15)),
        "click_rate": float(clicked.double().mean()),
    }
    if bool(valid.any()):
        metrics["user_auc"] = float((per_user.auc[valid] * weight).sum() / weight.sum())
    return metrics
