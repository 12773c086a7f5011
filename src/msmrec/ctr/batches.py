"""Batches of tokenised prompts: of like length, padded on the right, made when they are asked for.

Prompts of one user whose histories begin alike can share a sequence. It is the prompt of the latest sample, whole, and
behind it the questions about the other targets (the tails of their prompts), each in a branch of its own:

    profile  rating 1 ... rating 9  rating 10  rating 11  question 12 | question 10 | question 11
    branch 0                                                          | branch 1    | branch 2

A token sees what precedes it in its branch, and of branch 0 as much as its own prompt would have told: question 10
sees up to rating 9. Positions are counted as in its own prompt. So every answer is what the prompt alone would give,
and what prompts share is computed once, in training and in scoring.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from msmrec.artifacts import InputError
from msmrec.data.batches import EpochLoader, Plan, flat_rows
from msmrec.retrieval.prompts import PromptTokens

BLOCK = 8_192  # prompts tokenised together


class PromptBatch(NamedTuple):
    """Prompts up to where the answer begins: B sequences with S samples, one each or several.

    Where each sequence holds one, nothing but the causal mask is needed: nothing looks right, at the padding.
    """

    user_id: Tensor  # (S,)
    target_item: Tensor  # (S,)
    label: Tensor  # (S,) float, 1 = a click
    sequence: Tensor  # (S,) row of input_ids that the sample is in
    last: Tensor  # (S,) place there of its last token
    input_ids: Tensor  # (B, T) padded with 0 on the right
    soft_item: Tensor  # (B, T) item whose vector stands at a soft token, 0 elsewhere
    position: Tensor | None  # (B, T) place of each token in its own prompt; None where each sequence is one prompt
    branch: Tensor | None  # (B, T) which prompt of the sequence it belongs to, 0 for the whole one, -1 for padding
    shared: Tensor | None  # (B, T) how many tokens of the whole one it sees besides its own branch

    @property
    def num_tokens(self) -> int:
        """Positions, padding included."""
        return self.input_ids.numel()

    def mask(self) -> Tensor | None:
        """(B, 1, T, T) bool, True where the token of the row sees that of the column; None: those before it."""
        if self.branch is None or self.shared is None:
            return None
        place = torch.arange(self.branch.shape[1], device=self.branch.device)
        own = (self.branch[:, :, None] == self.branch[:, None, :]) & (place[:, None] >= place)
        return (own | (place < self.shared[:, :, None]))[:, None]


class BucketLoader(EpochLoader):
    """Sequences of like length in batches of about `tokens_per_batch` positions.

    Args:
        length: (S,) tokens of each sequence. tokens_per_batch: positions in a batch, padding included.
        device: where batches go.
        shuffle: mix sequences of like length, and batches, by seed and epoch; otherwise longest first.
        rank, world_size: this process and how many there are; each gets every world_size-th batch.
    """

    def __init__(
        self, length: np.ndarray, tokens_per_batch: int, device: torch.device, shuffle: bool, seed: int = 0,
        rank: int = 0, world_size: int = 1,
    ) -> None:  # fmt: skip
        self.device, self.shuffle, self.seed = device, shuffle, seed
        self.plan = Plan(length, tokens_per_batch, rank, world_size)

    def __len__(self) -> int:
        return self.plan.count(equal=self.shuffle)

    def groups(self) -> list[tuple[np.ndarray, int]]:
        """Sequences of each batch of this process, in the epoch's order, and the width that they are padded to."""
        return self.plan.batches(np.random.default_rng((self.seed, self.epoch)) if self.shuffle else None)


class PromptLoader(BucketLoader):
    """Batches of prompts.

    Lengths are known before anything is tokenised, so batches are planned at once and tokens are gathered a block at a
    time: memory does not grow with the number of samples.

    Args:
        tokens: makes the sequences.
        rows: (S,) samples. history: (S, K) rows in the order of the prompt. label: (S,) 1 for a click.
        share: prompts of a user whose histories begin with the same rating share a sequence. The histories must then be
            all ratings between that one and the sample (Retriever.window).
        **batches: see BucketLoader; a length is that of a sequence.
    """

    def __init__(
        self, tokens: PromptTokens, rows: np.ndarray, history: np.ndarray, label: np.ndarray, share: bool = False,
        **batches: Any,
    ) -> None:  # fmt: skip
        if not len(rows):
            raise InputError(
                f"{tokens.prompts.dataset.info['name']}: no samples in this part; see min_history and ratios of"
                " data.protocol"
            )
        self.tokens, self.share = tokens, share
        blocks = [slice(k, k + BLOCK) for k in range(0, len(rows), BLOCK)]
        sizes = [tokens.sizes(rows[b], history[b]) for b in blocks]
        length, tail, first = (np.concatenate(column) for column in zip(*sizes, strict=True))
        order, self.whole = np.arange(len(rows)), np.ones(len(rows), bool)
        if share:
            # Samples that tell from the same rating on stand together, the latest first; one without history alone.
            key = np.where(first >= 0, first, -1 - rows)
            order = np.lexsort((-rows, key))
            self.whole[1:] = np.diff(key[order]) != 0
        self.rows, self.history, self.label = rows[order], history[order], label[order].astype(np.float32)
        self.begin = np.flatnonzero(self.whole)  # first sample of each sequence
        self.count = np.diff(self.begin, append=len(rows))  # samples of each
        self.shared = np.where(self.whole, 0, (length - tail)[order])  # tokens of the whole prompt that a branch sees
        own = np.where(self.whole, length[order], tail[order])
        super().__init__(np.add.reduceat(own, self.begin), **batches)

    def __iter__(self) -> Iterator[PromptBatch]:
        waiting: list[tuple[np.ndarray, int]] = []
        for group in self.groups():
            waiting.append(group)
            if sum(int(self.count[g].sum()) for g, _ in waiting) >= BLOCK:
                yield from self._block(waiting)
                waiting = []
        if waiting:
            yield from self._block(waiting)

    def _block(self, groups: list[tuple[np.ndarray, int]]) -> Iterator[PromptBatch]:
        """Batches of sequences, tokenised together."""
        sequences = np.concatenate([group for group, _ in groups])
        samples = flat_rows(self.begin[sequences], (self.begin + self.count)[sequences])[1]
        made = self.tokens(self.rows[samples], self.history[samples], self.whole[samples] if self.share else None)
        sample_at = np.cumsum([0, *(int(self.count[g].sum()) for g, _ in groups)])
        token_at = np.append(0, np.cumsum(made.length))[sample_at]
        for k, (group, width) in enumerate(groups):
            here, tokens = slice(*sample_at[k : k + 2]), slice(*token_at[k : k + 2])
            yield self._batch(
                group, width, samples[here], made.length[here], made.input_ids[tokens], made.soft_item[tokens]
            )

    def _batch(
        self, group: np.ndarray, width: int, samples: np.ndarray, length: np.ndarray, input_ids: np.ndarray,
        soft_item: np.ndarray,
    ) -> PromptBatch:  # fmt: skip
        """One batch from its tokens, those of one sample after the other.

        Args:
            group: (B,) sequences. width: T. samples: (S,) theirs. length: (S,) tokens made of each.
            input_ids, soft_item: (X,)
        """
        count = self.count[group]
        sequence, branch = flat_rows(np.zeros_like(count), count)
        owner, token = flat_rows(np.zeros_like(length), length)  # sample of each token, and its place there
        row = sequence[owner]
        size = self.plan.length[group]
        column = np.arange(len(row)) - (np.cumsum(size) - size)[row]
        shape = len(group), width

        def padded(values: np.ndarray, fill: int = 0) -> Tensor:
            array = np.full(shape, fill, np.int64)
            array[row, column] = values
            return torch.from_numpy(array).to(self.device, non_blocking=True)

        def moved(values: np.ndarray) -> Tensor:
            return torch.from_numpy(values).to(self.device, non_blocking=True)

        data, rows = self.tokens.prompts.dataset, self.rows[samples]
        structure: tuple[Tensor | None, ...] = (None, None, None)
        if self.share:
            shared = self.shared[samples][owner]
            structure = padded(shared + token), padded(branch[owner], -1), padded(shared)
        return PromptBatch(
            moved(data.user_id[rows].astype(np.int64)), moved(data.item_id[rows].astype(np.int64)),
            moved(self.label[samples]), moved(sequence), moved(column[np.cumsum(length) - 1]),
            padded(input_ids), padded(soft_item), *structure,
        )  # fmt: skip
