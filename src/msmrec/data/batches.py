"""Batches, made by indexing flat arrays that lie on the device: no workers, no Python loop over users.

Sequences are padded on the right, with 0. Under a causal mask a real position never looks to its right, so no padding
mask is needed anywhere, and the fast attention kernels apply. Users of like length share a batch, so little is padded.
"""

from collections.abc import Iterator
from typing import NamedTuple, Self

import numpy as np
import torch
from torch import Tensor

from msmrec.artifacts import InputError
from msmrec.columns import TRAIN
from msmrec.data.prepare import Dataset


class TrainBatch(NamedTuple):
    """Sequences and, at each position, the item that came next."""

    user_id: Tensor  # (B,)
    item_seq: Tensor  # (B, L) oldest first, padded with 0 on the right
    target_item: Tensor  # (B, L) the next item; 0 where item_seq is 0
    seq_len: Tensor  # (B,)
    start: Tensor  # (B,) place of item_seq's first item in the user's whole history; 0 where nothing was cut off
    row: Tensor  # (T,) with column: the real positions, that is, all but the padding, row after row
    column: Tensor  # (T,)

    @property
    def num_tokens(self) -> int:
        """Positions, padding included."""
        return self.item_seq.numel()


class EvalBatch(NamedTuple):
    """A history, what to find after it, and what not to recommend."""

    user_id: Tensor  # (B,)
    item_seq: Tensor  # (B, L) oldest first, padded with 0 on the right
    seq_len: Tensor  # (B,)
    target_item: Tensor  # (B, T) padded with 0 on the right
    seen_row: Tensor  # (S,) with seen_item: pairs (row of the batch, item) of the whole history, not only of item_seq
    seen_item: Tensor  # (S,)
    start: Tensor  # (B,) place of item_seq's first item in the user's whole history; 0 where nothing was cut off


def rows_between(start: Tensor, end: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """Indices start, start + 1, ... and where they are below `end`.

    Args:
        start, end: (B,) positions in a flat array.

    Returns:
        (B, width) indices, those past the end set to 0, and (B, width) bool, True at real ones.
    """
    index = start[:, None] + torch.arange(width, device=start.device)
    real = index < end[:, None]
    return index * real, real


def flat_rows(start: np.ndarray, end: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Many ranges as one: which range each place belongs to, and the places, range after range.

    Args:
        start, end: (R,) first place, and one past the last, of each range.

    Returns:
        (T,) 0 to R - 1, and (T,) start[r] to end[r] - 1 for each r in turn; T is the sum of the lengths.
    """
    length = end - start
    owner = np.repeat(np.arange(len(length)), length)
    return owner, np.arange(len(owner)) + np.repeat(start - (np.cumsum(length) - length), length)


def share_of(count: int, rank: int, world_size: int, equal: bool) -> int:
    """How many of `count` things a process gets; `equal`: all as many, the rest left out, so that none waits."""
    whole, rest = divmod(count, world_size)
    return whole + (not equal and rank < rest)


def shuffled(count: int, seed: int, epoch: int, device: torch.device) -> Tensor:
    """(count,) 0 to count - 1 in an order of this seed and epoch, the same on all processes and devices."""
    generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
    return torch.randperm(count, generator=generator).to(device)


def refuse_idle(count: int, what: str, world_size: int) -> None:
    """Stops all processes where one would get nothing, and the others would wait for it for ever.

    Raises:
        InputError: there are fewer things than processes, though some.
    """
    if 0 < count < world_size:
        raise InputError(
            f"{count} {what} cannot be shared by {world_size} processes: set trainer.devices (times trainer.num_nodes)"
            f" to {count} at most"
        )


def width_of(length: np.ndarray) -> np.ndarray:
    """The widths that sequences are padded to: eight between a power of two and the next, all of them up to 16.

    So batches have few shapes, little padding (3% of ML-1M's positions), and mix sequences that are alike in length.
    A new shape costs a CPU milliseconds for each of its bfloat16 products, and a GPU new blocks of memory.

    Args:
        length: (S,) at least 1.
    """
    step = 1 << np.maximum(np.log2(length).astype(np.int64) - 3, 0)
    widths: np.ndarray = -(-length // step) * step
    return widths


class Plan:
    """Batches of sequences of like length, of a few shapes that are the same in every epoch.

    Args:
        length: (S,) of the sequences, at least 1. tokens_per_batch: positions of a batch at most, padding included.
        rank, world_size: this process and how many there are, each of which takes part in every step: there are at
            least as many batches, and each gets every world_size-th.

    Attributes:
        band: (S,) width that each sequence is padded to at least; those of one band are mixed.
        size, width: (K,) sequences of each batch and positions of each of them, longest first.

    Raises:
        InputError: there are fewer sequences than processes.
    """

    def __init__(self, length: np.ndarray, tokens_per_batch: int, rank: int = 0, world_size: int = 1) -> None:
        self.length, self.rank, self.world_size = length, rank, world_size
        # No wider than the longest: where histories are cut at a length, many have just that.
        self.band = np.minimum(width_of(length), length.max(initial=1))
        ordered = np.sort(self.band)[::-1].tolist()
        refuse_idle(len(ordered), "sequences", world_size)
        if world_size > 1:
            tokens_per_batch = min(tokens_per_batch, sum(ordered) // world_size)
        self.size: list[int] = []
        done = 0
        while done < len(ordered):
            self.size.append(min(max(1, tokens_per_batch // ordered[done]), len(ordered) - done))
            done += self.size[-1]
        # One long sequence leaves the many short ones too few batches, however few positions each may have.
        while 0 < len(self.size) < world_size:
            k = self.size.index(max(self.size))
            self.size[k : k + 1] = [self.size[k] - self.size[k] // 2, self.size[k] // 2]
        self.width: list[int] = [ordered[first] for first in np.cumsum(self.size) - self.size]

    def count(self, equal: bool) -> int:
        """Batches of this process; `equal`: all processes have as many, and the rest is left out."""
        return share_of(len(self.size), self.rank, self.world_size, equal)

    def batches(self, generator: np.random.Generator | None) -> list[tuple[np.ndarray, int]]:
        """(B,) sequences and width of each batch of this process.

        Args:
            generator: mixes sequences of a band, and batches; without it, the longest come first.
        """
        if generator is None:
            order, turn = np.argsort(-self.length, kind="stable"), np.arange(len(self.size))
        else:
            mixed = generator.permutation(len(self.band))
            order = mixed[np.argsort(-self.band[mixed], kind="stable")]
            turn = generator.permutation(len(self.size))
        groups = np.split(order, np.cumsum(self.size)[:-1])
        mine = turn[self.rank :: self.world_size][: self.count(equal=generator is not None)]
        return [(groups[k], self.width[k]) for k in mine]


class EpochLoader:
    """What Lightning asks of a loader whose order depends on the epoch: `sampler.set_epoch`, also after a resume."""

    epoch: int = 0
    batch_sampler: None = None

    @property
    def sampler(self) -> Self:
        """Itself."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Chooses the order of the next pass."""
        self.epoch = epoch


class TrainLoader(EpochLoader):
    """Shuffled batches of sequences of like length, the same in every run with the same seed and epoch.

    The host plans an epoch, and so knows every shape before the device does: no step waits for the device to say one.

    Args:
        dataset: a prepared dataset; only its training part is read.
        max_seq_len: positions at most. A longer history is cut into windows of this length, counted from its end.
        all_windows: train on every window of a long history, not only on the latest.
        tokens_per_batch: positions in a batch, padding included; so a batch of short histories has more users.
        device: where the arrays lie and the batches are made.
        seed: with `epoch`, decides the order.
        rank, world_size: this process and how many there are; each gets every world_size-th batch.

    Raises:
        InputError: nobody has two training rows, an item and the next.
    """

    def __init__(
        self,
        dataset: Dataset,
        max_seq_len: int,
        tokens_per_batch: int,
        device: torch.device,
        seed: int = 0,
        all_windows: bool = False,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        start, end = dataset.offsets[:-1], dataset.ends[TRAIN]
        # A window of n inputs takes n + 1 rows; the last one is only a target.
        windows = np.maximum(-(-(end - start - 1) // max_seq_len), 0)
        if not all_windows:
            windows = np.minimum(windows, 1)
        if not windows.any():
            raise InputError(
                f"{dataset.folder}: no user has two training rows, an item and the next; give training more of"
                " data.protocol.ratios, or keep more rows (data.protocol.min_rating, max_user_count)"
            )
        user, nth = flat_rows(np.zeros_like(windows), windows)  # 0: the latest window
        stop = end[user] - 1 - nth * max_seq_len  # one past the last input
        length = np.minimum(stop - start[user], max_seq_len)
        self.user, self.stop, self.length, self.start = (
            torch.from_numpy(array).to(device) for array in (user, stop, length, stop - length - start[user])
        )
        self.items = torch.from_numpy(dataset.item_id).to(device)
        self.seed = seed
        self.plan = Plan(length, tokens_per_batch, rank, world_size)

    def __len__(self) -> int:
        return self.plan.count(equal=True)

    def __iter__(self) -> Iterator[TrainBatch]:
        for sequences, width in self.plan.batches(np.random.default_rng((self.seed, self.epoch))):
            total = int(self.plan.length[sequences].sum())
            rows = torch.from_numpy(sequences).to(self.items.device, non_blocking=True)
            stop, length = self.stop[rows], self.length[rows]
            index, real = rows_between(stop - length, stop, width)
            row = torch.arange(len(rows), device=rows.device).repeat_interleave(length, output_size=total)
            column = torch.arange(total, device=rows.device) - (length.cumsum(0) - length)[row]
            items, targets = (self.items[index] * real).long(), (self.items[index + 1] * real).long()
            yield TrainBatch(self.user[rows], items, targets, length, self.start[rows], row, column)


class HistoryLoader:
    """Batches over histories of any origin, in an order that does not change: longest first.

    Args:
        items: (T,) histories and their targets, one after the other, each oldest first.
        user: (S,) user_id of each history; 0 for somebody whom the dataset does not know.
        start, end: (S,) where a history begins, and one past its last item; none is empty.
        last: (S,) one past its last target; `end` where there is none.
        max_seq_len: the latest items of the history that the model reads; `seen` pairs cover all of it.
        batch_size: users a batch.
        device: where the arrays lie and the batches are made.
        rank, world_size: this process and how many there are; each gets every world_size-th history.
    """

    def __init__(
        self, items: np.ndarray, user: np.ndarray, start: np.ndarray, end: np.ndarray, last: np.ndarray,
        max_seq_len: int, batch_size: int, device: torch.device, rank: int = 0, world_size: int = 1,
    ) -> None:  # fmt: skip
        self.order = np.argsort(start - end, kind="stable")[rank::world_size]  # (S,) histories as batches have them
        self.user, self.start, self.end, self.last = (
            torch.from_numpy(np.ascontiguousarray(a[self.order])).to(device) for a in (user, start, end, last)
        )
        self.items = torch.from_numpy(items).to(device)
        self.max_seq_len, self.batch_size = max_seq_len, batch_size

    def __len__(self) -> int:
        return -(-len(self.user) // self.batch_size)

    def __iter__(self) -> Iterator[EvalBatch]:
        if not len(self.user):
            return
        for rows in torch.split(torch.arange(len(self.user), device=self.user.device), self.batch_size):
            start, end, last = self.start[rows], self.end[rows], self.last[rows]
            length = (end - start).clamp(max=self.max_seq_len)
            index, real = rows_between(end - length, end, int(length.max()))
            target, is_target = rows_between(end, last, int((last - end).max()))
            history, is_seen = rows_between(start, end, int((end - start).max()))
            yield EvalBatch(
                self.user[rows],
                (self.items[index] * real).long(),
                length,
                (self.items[target] * is_target).long(),
                is_seen.nonzero()[:, 0],
                self.items[history[is_seen]].long(),
                end - start - length,
            )


class EvalLoader(HistoryLoader):
    """Batches over the users that have targets in a split, and rows before it.

    Who has none before it is left out: with global_time, those who come after the cut. A run's metrics.json counts them
    (users_without_history).

    Args:
        dataset: a prepared dataset.
        split: VAL or TEST (see msmrec.columns). Histories for TEST include the validation items.
        max_seq_len, batch_size, device, rank, world_size: see HistoryLoader.

    Raises:
        InputError: there are fewer such users than processes.
    """

    def __init__(
        self, dataset: Dataset, split: int, max_seq_len: int, batch_size: int, device: torch.device,
        rank: int = 0, world_size: int = 1,
    ) -> None:  # fmt: skip
        start, end, last = dataset.offsets[:-1], dataset.ends[split - 1], dataset.ends[split]
        users = np.flatnonzero((last > end) & (end > start))
        refuse_idle(len(users), "users to evaluate", world_size)
        super().__init__(
            dataset.item_id, users, start[users], end[users], last[users], max_seq_len, batch_size, device, rank,
            world_size,
        )  # fmt: skip
