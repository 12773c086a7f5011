"""Click samples: would this user like this item, given all that the user rated before?

A sample is a row of the interactions. Its history is every earlier row of the same user, likes and dislikes, whatever
part they belong to: at the time of a test sample all of them are past.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from msmrec.artifacts import InputError
from msmrec.columns import RATING, SPLIT, TRAIN
from msmrec.data.batches import EpochLoader, refuse_idle, rows_between, share_of, shuffled
from msmrec.data.prepare import Dataset


class SampleBatch(NamedTuple):
    """Click samples with the latest part of their history."""

    user_id: Tensor  # (B,)
    target_item: Tensor  # (B,)
    label: Tensor  # (B,) float, 1 = a click
    item_seq: Tensor  # (B, L) oldest first, padded with 0 on the right; L is the same in all batches
    rating_seq: Tensor  # (B, L) float, 0 at padding
    seq_len: Tensor  # (B,)

    @property
    def num_tokens(self) -> int:
        """Positions, padding included."""
        return self.item_seq.numel()


def sample_rows(dataset: Dataset, split: int) -> np.ndarray:
    """(S,) int64 rows of the interactions that are samples of a part: enough history before them.

    Raises:
        InputError: the training part has none.
    """
    position = np.arange(len(dataset.item_id)) - dataset.offsets[dataset.user_id]
    part, enough = dataset.column(SPLIT) == split, dataset.info["protocol"]["min_history"]
    rows = np.flatnonzero(part & (position >= enough))
    if split == TRAIN and not len(rows):
        raise InputError(
            f"{dataset.folder}: no training row has data.protocol.min_history {enough} earlier ones of its user (the"
            f" most is {position[part].max(initial=0)}); lower it, or keep more rows"
        )
    return rows


class SampleLoader(EpochLoader):
    """Batches of click samples, shuffled for training and in the order of rows otherwise.

    Args:
        dataset: prepared with a split by time.
        split: TRAIN, VAL or TEST.
        label_above: a rating above it is a click.
        max_history: the latest ratings before the target that are given.
        batch_size: samples.
        device: where the arrays lie and the batches are made.
        shuffle: a new order each epoch, the same in every run with the same seed.
        seed: with `epoch`, decides the order.
        rank, world_size: this process and how many there are; each gets every world_size-th sample.
    """

    def __init__(
        self,
        dataset: Dataset,
        split: int,
        label_above: float,
        max_history: int,
        batch_size: int,
        device: torch.device,
        shuffle: bool,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        rows = sample_rows(dataset, split)
        refuse_idle(len(rows), "samples", world_size)
        self.rows = torch.from_numpy(rows).to(device)
        longest = (rows - dataset.offsets[dataset.user_id[rows]]).max(initial=1)
        self.width = max(1, min(max_history, int(longest)))  # one shape for all batches, known without the device
        self.items = torch.from_numpy(dataset.item_id).to(device)
        self.users = torch.from_numpy(dataset.user_id).to(device)
        self.ratings = torch.from_numpy(dataset.column(RATING)).to(device)
        self.offsets = torch.from_numpy(dataset.offsets).to(device)
        self.label_above, self.max_history, self.batch_size = label_above, max_history, batch_size
        self.shuffle, self.seed, self.rank, self.world_size = shuffle, seed, rank, world_size

    def _mine(self) -> int:
        """Samples of this process: all processes train on equally many, and evaluate all between them."""
        return share_of(len(self.rows), self.rank, self.world_size, equal=self.shuffle)

    def __len__(self) -> int:
        return -(-self._mine() // self.batch_size)

    def __iter__(self) -> Iterator[SampleBatch]:
        rows = self.rows
        if self.shuffle:
            rows = rows[shuffled(len(rows), self.seed, self.epoch, rows.device)]
        for block in torch.split(rows[self.rank :: self.world_size][: self._mine()], self.batch_size):
            user = self.users[block].long()
            start = torch.maximum(self.offsets[user], block - self.max_history)
            length = block - start
            label = (self.ratings[block] > self.label_above).float()
            history = _history(self.items, self.ratings, start, block, self.width)
            yield SampleBatch(user, self.items[block].long(), label, *history, length)


class PairLoader:
    """Batches of pairs of a user and an item that need be no rows of the dataset, in the order in which they are given.

    Args:
        dataset: whose rows the histories are.
        user, item: (S,) the pairs. end: (S,) one past the last row of the user that is read.
        max_history, batch_size, device: as for SampleLoader. Nobody knows the labels: they are 0.
    """

    def __init__(
        self,
        dataset: Dataset,
        user: np.ndarray,
        item: np.ndarray,
        end: np.ndarray,
        max_history: int,
        batch_size: int,
        device: torch.device,
    ) -> None:
        self.user, self.item, self.end, self.batch_size, self.device = user, item, end, batch_size, device
        self.start = np.maximum(dataset.offsets[user], end - max_history)
        self.width = max(1, int((end - self.start).max(initial=1)))
        self.items = torch.from_numpy(dataset.item_id).to(device)
        self.ratings = torch.from_numpy(dataset.column(RATING)).to(device)

    def __iter__(self) -> Iterator[SampleBatch]:
        for k in range(0, len(self.user), self.batch_size):
            columns = (c[k : k + self.batch_size] for c in (self.user, self.item, self.start, self.end))
            user, item, start, end = (torch.from_numpy(c.astype(np.int64)).to(self.device) for c in columns)
            history = _history(self.items, self.ratings, start, end, self.width)
            yield SampleBatch(user, item, torch.zeros_like(user, dtype=torch.float32), *history, end - start)


def _history(items: Tensor, ratings: Tensor, start: Tensor, end: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """(B, width) items and ratings of the rows from (B,) `start` to before (B,) `end`, 0 behind them."""
    index, real = rows_between(start, end, width)
    return (items[index] * real).long(), ratings[index] * real
