"""RecDataModule: one dataset, its batches on the device. Every model here trains from it."""

import os
from functools import cached_property
from pathlib import Path
from typing import Any

import lightning as L
import torch

from msmrec.artifacts import InputError
from msmrec.columns import TEST, VAL
from msmrec.data.prepare import Dataset, SplitProtocol, prepare
from msmrec.data.root import at_home
from msmrec.data.sources.base import Source


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
        batch_size: edges or click samples in a training batch, for models that read those.
        eval_batch_size: users in an evaluation batch; click models take 16 times as many samples.
        label_above: click prediction: a rating above it is a click.
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
        batch_size: int = 4096,
        eval_batch_size: int = 128,
        label_above: float = 3.0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        sizes = {"max_seq_len": max_seq_len, "tokens_per_batch": tokens_per_batch}
        for name, size in {**sizes, "batch_size": batch_size, "eval_batch_size": eval_batch_size}.items():
            if size < 1:
                raise InputError(f"data.{name} {size}: at least 1")
        self.source, self.protocol = source, protocol
        self.root = at_home(root or os.environ.get("MSMREC_DATA", "data"))
        self.cache = at_home(cache or os.environ.get("MSMREC_CACHE", "artifacts"))
        self.max_seq_len, self.tokens_per_batch, self.all_windows = max_seq_len, tokens_per_batch, all_windows
        self.batch_size, self.eval_batch_size, self.label_above = batch_size, eval_batch_size, label_above
        self.seed = seed
        self.upstream: dict[str, Path] = {}  # run folders by name, from `needs:`

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

    def place(self) -> tuple[torch.device, int, int]:
        """Device of the batches, number of this process, and how many processes there are."""
        trainer = self.trainer
        assert trainer is not None, "loaders are asked for by a Trainer"
        return trainer.strategy.root_device, trainer.global_rank, trainer.world_size

    def run(self, name: str) -> Path:
        """Folder of a finished upstream run.

        Raises:
            InputError: the config does not list it under `needs`.
        """
        if name not in self.upstream:
            known = ", ".join(self.upstream) or "nothing"
            raise InputError(f"{name} is read but not under needs: (which lists {known}); add {name}.yaml there")
        return self.upstream[name]

    # What a batch holds depends on the model: sequences, edges, click samples, prompts. So the model makes its loaders.

    def _model(self) -> Any:
        assert self.trainer is not None, "loaders are asked for by a Trainer"
        return self.trainer.lightning_module

    def train_dataloader(self) -> Any:
        """Batches of the training part."""
        return self._model().train_loader(self)

    def val_dataloader(self) -> Any:
        """Batches of the validation part."""
        return self._model().eval_loader(self, VAL)

    def test_dataloader(self) -> Any:
        """Batches of the test part."""
        return self._model().eval_loader(self, TEST)
