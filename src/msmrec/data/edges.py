"""Edges of the user-item graph: the rows of the training part, in shuffled batches made on the device."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from msmrec.artifacts import InputError
from msmrec.columns import RATING, SPLIT, TRAIN
from msmrec.data.batches import EpochLoader, shuffled
from msmrec.data.prepare import Dataset


class EdgeBatch(NamedTuple):
    """Training interactions, each by itself."""

    user_id: Tensor  # (B,)
    pos_item: Tensor  # (B,)

    @property
    def num_tokens(self) -> int:
        """Edges."""
        return len(self.user_id)


def training_edges(dataset: Dataset, above: float | None = None, leak: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Users and items of the training part's rows, sorted by user.

    Args:
        above: only rows with a higher rating; None for all rows.
        leak: of all parts, each user's last row left out. A defect, for comparison with results that have it.

    Returns:
        (E,) int32 users and (E,) int32 items.
    """
    rows = dataset.column(SPLIT) == TRAIN
    if leak:
        rows = np.ones(len(rows), dtype=bool)
        rows[dataset.offsets[2:] - 1] = False
    if above is not None:
        rows &= dataset.column(RATING) > above
    if not rows.any():
        raise InputError(f"{dataset.info['name']}: no training row is rated above {above}; lower model.edges_above")
    return dataset.user_id[rows], dataset.item_id[rows]


class EdgeLoader(EpochLoader):
    """Shuffled batches of training edges, the same in every run with the same seed and epoch.

    Args:
        dataset: a prepared dataset; only its training part is read.
        batch_size: edges.
        device: where the arrays lie and the batches are made.
        above, leak: see `training_edges`.
        by_user: the edges of a user come one after the other, so a batch has few users, with all they have.
        seed: with `epoch`, decides the order.
        rank, world_size: this process and how many there are; each gets an equal part of the epoch's order.
    """

    def __init__(
        self,
        dataset: Dataset,
        batch_size: int,
        device: torch.device,
        above: float | None = None,
        leak: bool = False,
        by_user: bool = False,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        user, item = training_edges(dataset, above, leak)
        self.user, self.item = torch.from_numpy(user).to(device), torch.from_numpy(item).to(device)
        self.by_user, self.num_users = by_user, dataset.num_users
        self.batch_size, self.seed, self.rank, self.world_size = batch_size, seed, rank, world_size

    def _share(self) -> int:
        """Edges of one process; all have the same number, so none waits for a batch that another does not have."""
        return len(self.user) // self.world_size

    def __len__(self) -> int:
        return -(-self._share() // self.batch_size)

    def __iter__(self) -> Iterator[EdgeBatch]:
        device = self.user.device
        if self.by_user:
            place = shuffled(self.num_users + 1, self.seed, self.epoch, device)
            order = torch.argsort(place[self.user], stable=True)
        else:
            order = shuffled(len(self.user), self.seed, self.epoch, device)
        first = self.rank * self._share()
        for rows in torch.split(order[first : first + self._share()], self.batch_size):
            yield EdgeBatch(self.user[rows].long(), self.item[rows].long())
