"""Batches of tokenised prompts: of like length, padded on the right, made when they are asked for."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from msmrec.data.batches import EpochLoader, batch_sizes
from msmrec.retrieval.prompts import PromptTokens

BLOCK = 8_192  # prompts tokenised together


class PromptBatch(NamedTuple):
    """Prompts up to where the answer begins. Under a causal mask nothing looks right, so padding needs no mask."""

    user_id: Tensor  # (B,)
    target_item: Tensor  # (B,)
    label: Tensor  # (B,) float, 1 = a click
    input_ids: Tensor  # (B, T) padded with 0 on the right
    soft_item: Tensor  # (B, T) item whose vector stands at a soft token, 0 elsewhere
    last: Tensor  # (B,) place of the last token

    @property
    def num_tokens(self) -> int:
        """Positions, padding included."""
        return self.input_ids.numel()


class BucketLoader(EpochLoader):
    """Sequences of like length in batches of about `tokens_per_batch` positions.

    Args:
        length: (S,) tokens of each sequence. tokens_per_batch: positions in a batch, padding included.
        device: where batches go.
        shuffle: mix lengths by 10% and batches altogether, by seed and epoch; otherwise by length, longest first.
        rank, world_size: this process and how many there are; each gets every world_size-th batch.
    """

    def __init__(
        self, length: np.ndarray, tokens_per_batch: int, device: torch.device, shuffle: bool, seed: int = 0,
        rank: int = 0, world_size: int = 1,
    ) -> None:  # fmt: skip
        self.length, self.device, self.shuffle, self.seed = length, device, shuffle, seed
        self.rank, self.world_size = rank, world_size
        self.sizes = batch_sizes(length, tokens_per_batch, world_size)

    def __len__(self) -> int:
        if self.shuffle:
            return len(self.sizes) // self.world_size  # all processes train on equally many
        return len(range(self.rank, len(self.sizes), self.world_size))

    def groups(self) -> list[np.ndarray]:
        """Sequences of each batch of this process, in the epoch's order."""
        generator = np.random.default_rng((self.seed, self.epoch))
        key = self.length * (generator.uniform(0.9, 1.1, len(self.length)) if self.shuffle else 1.0)
        groups = np.split(np.argsort(-key, kind="stable"), np.cumsum(self.sizes)[:-1])
        order = generator.permutation(len(groups)) if self.shuffle else np.arange(len(groups))
        return [groups[k] for k in order[self.rank :: self.world_size][: len(self)]]


class PromptLoader(BucketLoader):
    """Batches of prompts.

    Lengths are known before anything is tokenised, so batches are planned at once and tokens are gathered a block at a
    time: memory does not grow with the number of samples.

    Args:
        tokens: makes the sequences.
        rows: (S,) samples. history: (S, K) rows in the order of the prompt. label: (S,) 1 for a click.
        **batches: see BucketLoader.
    """

    def __init__(
        self, tokens: PromptTokens, rows: np.ndarray, history: np.ndarray, label: np.ndarray, **batches: Any
    ) -> None:
        self.tokens, self.rows, self.history, self.label = tokens, rows, history, label.astype(np.float32)
        blocks = [slice(k, k + BLOCK) for k in range(0, len(rows), BLOCK)]
        super().__init__(np.concatenate([tokens.lengths(rows[b], history[b]) for b in blocks]), **batches)

    def __iter__(self) -> Iterator[PromptBatch]:
        waiting: list[np.ndarray] = []
        for group in self.groups():
            waiting.append(group)
            if sum(map(len, waiting)) >= BLOCK:
                yield from self._block(waiting)
                waiting = []
        if waiting:
            yield from self._block(waiting)

    def _block(self, groups: list[np.ndarray]) -> Iterator[PromptBatch]:
        samples = np.concatenate(groups)
        made = self.tokens(self.rows[samples], self.history[samples])
        start = np.cumsum(made.length) - made.length
        data, first = self.tokens.prompts.dataset, 0
        for group in groups:
            here = slice(first, first + len(group))
            first += len(group)
            place = np.arange(int(made.length[here].max()))
            real = place < made.length[here, None]
            index = np.where(real, start[here, None] + place, 0)
            arrays = (
                data.user_id[self.rows[group]].astype(np.int64),
                data.item_id[self.rows[group]].astype(np.int64),
                self.label[group],
                np.where(real, made.input_ids[index], 0).astype(np.int64),
                np.where(real, made.soft_item[index], 0).astype(np.int64),
                made.length[here] - 1,
            )
            yield PromptBatch(*(torch.from_numpy(array).to(self.device, non_blocking=True) for array in arrays))
