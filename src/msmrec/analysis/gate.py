"""The gate's weights at every place of every history, as flat arrays.

A history is all that a user did before the test items. The gate has no notion of place, so it reads histories longer
than the model's `max_seq_len` too; `Gate.users` alone are of the latest `max_seq_len` items, because these weights are
the ones that the model recommends with.

Two views. As the model works, causally: `items`, `after`, `users`. And in hindsight: `whole` and `halves`, where each
item is asked with all other items of its user as profile. The first is what the model does; the second finds more of
what a user is like, since early items no longer meet an empty profile (on the generated dataset, users' planted ruling
modality and the direction of planted drift are found more often; `planted.py` measures that).
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from msmrec.artifacts import InputError
from msmrec.columns import VAL
from msmrec.data.batches import Plan, flat_rows, rows_between
from msmrec.data.prepare import Dataset
from msmrec.models.modality_gate import masked_softmax
from msmrec.models.msmrec import MSMRec
from msmrec.run_folder import OpenRun

Weights = NDArray[np.float32]
Places = NDArray[np.int64]
POSITIONS_PER_BATCH = 4096


def gated(run: OpenRun) -> MSMRec:
    """The run's model, which has a gate.

    Raises:
        InputError: it has none.
    """
    if not isinstance(run.model, MSMRec):
        kind = type(run.model).__name__
        raise InputError(f"{run.folder}: {kind} has no modality gate to analyse; name a run of MSMRec")
    return run.model


@dataclass(frozen=True)
class Gate:
    """The gate's weights of U users, whose T places lie one history after the other, oldest item first."""

    names: list[str]
    """M modalities"""
    user_id: Places
    """(U,) ascending"""
    offsets: Places
    """(U + 1,) the history of user u is offsets[u] to offsets[u + 1]"""
    rows: Places
    """(T,) row of the dataset's interactions"""
    item_id: NDArray[np.int32]
    """(T,)"""
    items: Weights
    """(T, M) of the item at the place, given the user up to it; 0 where the item has no text"""
    after: Weights
    """(T, M) of the user after the place; 0 where no item so far has a text, and so below"""
    users: Weights
    """(U, M) of the user at the end of what the model reads"""
    whole: Weights
    """(U, M) of the user in hindsight"""
    halves: Weights
    """(2, U, M) of the user in hindsight, from the items of the first and of the second half alone; the item in the
    middle of an odd history belongs to the second half"""

    @property
    def has_text(self) -> NDArray[np.bool_]:
        """(U,) whether any item that the model reads of the user has a text, and so the user weights."""
        return np.asarray(self.users.sum(1) > 0)

    @property
    def has_halves(self) -> NDArray[np.bool_]:
        """(U,) whether both halves have a text."""
        return np.asarray((self.halves.sum(2) > 0).all(0))

    @property
    def lengths(self) -> Places:
        """(U,) items of each history."""
        return np.diff(self.offsets)

    @property
    def owner(self) -> Places:
        """(T,) row of the user."""
        return np.repeat(np.arange(len(self.user_id)), self.lengths)

    @property
    def in_second(self) -> NDArray[np.bool_]:
        """(T,) whether a place is in the second half of its history."""
        return np.arange(self.offsets[-1]) >= np.repeat(self.offsets[:-1] + self.lengths // 2, self.lengths)


def read_gate(model: MSMRec, dataset: Dataset) -> Gate:
    """Asks the gate about all users with a history before the test part.

    Args:
        model: trained; in evaluation mode.
    """
    start, end = dataset.offsets[:-1], dataset.ends[VAL]
    user_id = np.flatnonzero(end > start)
    start, end = start[user_id], end[user_id]
    offsets = np.concatenate([[0], np.cumsum(end - start)])
    _, rows = flat_rows(start, end)
    items, after = over_ranges(model, model.gate_weights, dataset.item_id, start, end)
    users = after[offsets[1:] - 1].copy()
    if len(cut := np.flatnonzero(end - start > model.max_seq_len)):
        _, latest = over_ranges(model, model.gate_weights, dataset.item_id, end[cut] - model.max_seq_len, end[cut])
        users[cut] = latest[model.max_seq_len - 1 :: model.max_seq_len]
    item_id, middle = dataset.item_id[rows], offsets[:-1] + (end - start) // 2
    (scores,) = over_ranges(model, lambda *batch: (model.hindsight_scores(*batch),), dataset.item_id, start, end)
    summed = _running_sums(model, item_id, scores)
    whole, *halves = (
        _softmax_of_mean(model, summed, *bounds)
        for bounds in ((offsets[:-1], offsets[1:]), (offsets[:-1], middle), (middle, offsets[1:]))
    )
    return Gate(model.text.names, user_id, offsets, rows, item_id, items, after, users, whole, np.stack(halves))


def over_ranges(
    model: MSMRec,
    ask: Callable[[Tensor, Tensor], tuple[Tensor, ...]],
    item_id: NDArray[np.int32],
    start: Places,
    end: Places,
) -> list[Weights]:
    """What the gate says at each place of some ranges of a flat array of items, each range read as a history.

    Args:
        ask: item_seq (B, L) and seq_len (B,) to tensors (B, L, M), such as `MSMRec.gate_weights`.
        item_id: (S,). start, end: (R,) the ranges, none of them empty.

    Returns:
        An array (T, M) for each tensor of `ask`, range after range; T is the sum of the lengths.
    """
    device, length, items = model.device, end - start, torch.from_numpy(item_id).to(model.device)
    place = torch.from_numpy(np.cumsum(length) - length)
    found: list[Weights] = []
    with torch.inference_mode():
        for rows, width in Plan(length, POSITIONS_PER_BATCH).batches(None):
            first, stop = (torch.from_numpy(part[rows]).to(device) for part in (start, end))
            index, real = rows_between(first, stop, width)
            answers = ask((items[index] * real).long(), stop - first)
            found = found or [np.zeros((int(length.sum()), answer.shape[-1]), np.float32) for answer in answers]
            to = (place[torch.from_numpy(rows)][:, None] + torch.arange(real.shape[1]))[real.cpu()].numpy()
            for flat, answer in zip(found, answers, strict=True):
                flat[to] = answer[real].float().cpu().numpy()
    return found


def _running_sums(model: MSMRec, item_id: NDArray[np.int32], scores: Weights) -> NDArray[np.float64]:
    """(2, T + 1, M) sums of scores, and of texts, before each place."""
    present = model.present.cpu().numpy()[item_id]
    sums = np.zeros((2, len(item_id) + 1, scores.shape[1]))
    np.cumsum(np.where(present, scores, 0), axis=0, out=sums[0, 1:], dtype=np.float64)
    np.cumsum(present, axis=0, out=sums[1, 1:], dtype=np.float64)
    return sums


def _softmax_of_mean(model: MSMRec, sums: NDArray[np.float64], start: Places, end: Places) -> Weights:
    """(R, M) weights from the mean scores over each range, as the gate makes them."""
    total, count = sums[:, end] - sums[:, start]
    mean = torch.from_numpy(total / np.maximum(count, 1))
    weights: Weights = masked_softmax(mean, torch.from_numpy(count > 0), model.gate.top_k).numpy()
    return weights
