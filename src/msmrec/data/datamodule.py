"""RecDataModule: one dataset, its batches on the device. Every model here trains from it."""

import os
from functools import cached_property
from pathlib import Path

import lightning as L
import torch

from msmrec.columns import TEST, VAL
from msmrec.data.batches import EvalLoader, TrainLoader
from msmrec.data.prepare import Dataset, Source, SplitProtocol, prepare


class RecDataModule(L.LightningDataModule):
    """Prepares a dataset when it is first needed and serves it as batches made on the device.

    Args:
        source: the dataset family, e.g. MovieLens.
        root: folder with the raw files; by default $MSMREC_DATA, or else data/.
        cache: where prepared datasets, texts and vectors are kept; by default $MSMREC_CACHE, or else artifacts/.
        protocol: filter and split.
        max_seq_len: items of a history that a model reads, at most.
        tokens_per_batch: positions in a training batch, padding included.
        all_windows: train on all windows of max_seq_len of a long history, not only on the latest.
        eval_batch_size: users in an evaluation batch.
        seed: order of the batches; linked to seed_everything.
    """

    def __init__(
        self,
        source: Source,
        root: str | None = None,
        cache: str | None = None,
        protocol: SplitProtocol = SplitProtocol(),  # noqa: B008 (frozen)
        max_seq_len: int = 200,
        tokens_per_batch: int = 16_384,
        all_windows: bool = False,
        eval_batch_size: int = 128,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.source, self.protocol = source, protocol
        self.root = Path(root or os.environ.get("MSMREC_DATA", "data"))
        self.cache = Path(cache or os.environ.get("MSMREC_CACHE", "artifacts"))
        self.max_seq_len, self.tokens_per_batch, self.all_windows = max_seq_len, tokens_per_batch, all_windows
        self.eval_batch_size, self.seed = eval_batch_size, seed

    @cached_property
    def dataset(self) -> Dataset:
        """The prepared dataset, made now if it is not there."""
        return prepare(self.source, self.root, self.cache, self.protocol)

    @property
    def num_items(self) -> int:
        """Items, the padding not counted."""
        return self.dataset.num_items

    @property
    def num_users(self) -> int:
        """Users."""
        return self.dataset.num_users

    def _place(self) -> tuple[torch.device, int, int]:
        trainer = self.trainer
        assert trainer is not None, "loaders are asked for by a Trainer"
        return trainer.strategy.root_device, trainer.global_rank, trainer.world_size

    def train_dataloader(self) -> TrainLoader:
        """Shuffled sequences of like length."""
        device, rank, world_size = self._place()
        return TrainLoader(
            self.dataset, self.max_seq_len, self.tokens_per_batch, device, self.seed, self.all_windows, rank, world_size
        )

    def _eval_loader(self, split: int) -> EvalLoader:
        device, rank, world_size = self._place()
        return EvalLoader(self.dataset, split, self.max_seq_len, self.eval_batch_size, device, rank, world_size)

    def val_dataloader(self) -> EvalLoader:
        """Users with validation items."""
        return self._eval_loader(VAL)

    def test_dataloader(self) -> EvalLoader:
        """Users with test items."""
        return self._eval_loader(TEST)
