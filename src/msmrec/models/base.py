"""What all models share: Module (optimiser, resuming that changes nothing) and RecModule (full ranking)."""

import math
import os
from abc import abstractmethod
from pathlib import Path
from typing import Any, ClassVar, Literal

import lightning as L
import torch
from torch import Tensor

from msmrec.artifacts import InputError
from msmrec.columns import TEST, VAL
from msmrec.data.batches import EvalBatch, EvalLoader, TrainLoader
from msmrec.data.catalogue import catalogue_of, genre_tastes
from msmrec.data.datamodule import RecDataModule
from msmrec.data.prepare import Dataset
from msmrec.metrics.beyond_accuracy import TIERS, Catalogue, list_measures
from msmrec.metrics.ranking import ranking_metrics, target_ranks


class Module(L.LightningModule):
    """A model trained by Lightning.

    Args:
        lr: learning rate (Adam).
        weight_decay: decoupled weight decay (AdamW) on matrices; 0 is plain Adam.
        schedule: constant, or cosine or linear from lr to 0 over the whole training.
        warmup_steps: optimiser steps over which the rate rises from 0.
    """

    monitor: ClassVar[str]
    """The validation metric that chooses the best checkpoint; higher is better."""
    headline: ClassVar[tuple[str, ...]]
    """Metrics that a finished run prints."""
    trains: ClassVar[bool] = True
    """False where there is nothing to train: such a config is evaluated as it stands."""

    def __init__(
        self,
        lr: float = 1e-3,
        weight_decay: float = 0.0,
        schedule: Literal["constant", "cosine", "linear"] = "constant",
        warmup_steps: int = 100,
    ) -> None:
        super().__init__()
        self.lr, self.weight_decay, self.schedule, self.warmup_steps = lr, weight_decay, schedule, warmup_steps
        self._parts: list[tuple[Tensor, ...]] = []  # what `evaluate` gave, batch by batch
        self.results: dict[str, Tensor] = {}  # of the last evaluation: (U,) user_id and metrics of each user

    @abstractmethod
    def train_loader(self, data: RecDataModule) -> Any:
        """Batches that `training_step` reads, with `set_epoch`."""

    @abstractmethod
    def eval_loader(self, data: RecDataModule, split: int) -> Any:
        """Batches that `validation_step` and `test_step` read."""

    def report(self, run: Path, metrics: dict[str, float]) -> str:
        """What a finished run prints.

        Args:
            run: its folder. metrics: under val/... or test/...
        """
        row = {key.split("/")[-1]: f"{key} {value:.4f}" for key, value in metrics.items()}
        return f"{run}  " + "  ".join(row[name] for name in self.headline if name in row)

    def save(self, run: Path) -> None:
        """Writes what a finished run leaves beside checkpoint, metrics and vectors, e.g. an adapter."""

    def vectors_to_export(self) -> dict[str, Tensor]:
        """Vectors that a finished run leaves for others: "item_embeddings" (N + 1, D), "user_embeddings" (U + 1, D)."""
        return {}

    def protocol(self, data: RecDataModule) -> dict[str, Any]:
        """What metrics.json says of the evaluation beside the dataset's own protocol."""
        return {"tie_order": "file order", "val_in_train": False}

    # -- several processes --------------------------------------------------------------------------------------------

    def largest(self, *numbers: int) -> list[int]:
        """The largest value of each number over all processes."""
        mine = torch.tensor(numbers, device=self.device)
        if self.trainer.world_size > 1:
            mine = torch.as_tensor(self.all_gather(mine)).view(-1, len(numbers)).amax(0)
        return mine.tolist()

    def gather(self, *columns: Tensor) -> list[Tensor]:
        """Rows of all processes, (S, ...) each, one process after the other."""
        if self.trainer.world_size == 1:
            return list(columns)
        count = torch.as_tensor(self.all_gather(torch.tensor(len(columns[0]), device=self.device)))  # (processes,)
        width = int(count.max())
        real = (torch.arange(width, device=self.device) < count[:, None]).flatten()
        gathered = []
        for column in columns:
            padded = column.new_zeros(width, *column.shape[1:])
            padded[: len(column)] = column
            gathered.append(torch.as_tensor(self.all_gather(padded)).flatten(0, 1)[real])
        return gathered

    # -- evaluation ---------------------------------------------------------------------------------------------------

    exact_evaluation: ClassVar[bool] = True
    """Evaluate in float32 whatever the training's precision: bfloat16 scores tie by the hundred, which costs ranks."""

    @abstractmethod
    def evaluate(self, batch: Any) -> tuple[Tensor, ...]:
        """What `finish` needs of a batch: columns (B, ...) of equally many rows."""

    @abstractmethod
    def finish(self, prefix: str, columns: list[Tensor]) -> dict[str, float]:
        """Metrics of a whole part, from the columns of all its batches and processes.

        Args:
            prefix: val or test. columns: what `evaluate` gave, (S, ...) each.
        """

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """Keeps what `evaluate` gives."""
        enabled = torch.is_autocast_enabled(self.device.type) and not self.exact_evaluation
        with torch.autocast(self.device.type, enabled=enabled):
            self._parts.append(self.evaluate(batch))

    def test_step(self, batch: Any, batch_idx: int) -> None:
        """As `validation_step`."""
        self.validation_step(batch, batch_idx)

    def on_validation_epoch_end(self) -> None:
        """Logs val/..."""
        self._log_part("val")

    def on_test_epoch_end(self) -> None:
        """Logs test/..."""
        self._log_part("test")

    def _log_part(self, prefix: str) -> None:
        columns = [self._joined(list(column)) for column in zip(*self._parts, strict=True)]
        self._parts.clear()
        metrics = {f"{prefix}/{name}": value for name, value in self.finish(prefix, self.gather(*columns)).items()}
        self.log_dict(metrics, sync_dist=self.trainer.world_size > 1)  # the same on all processes

    def _joined(self, parts: list[Tensor]) -> Tensor:
        """(S, ...) one after the other; matrices padded on the right to the widest, with their maximum."""
        if parts[0].dim() == 1:
            return torch.cat(parts)
        width, worst = self.largest(max(part.shape[1] for part in parts), max(int(part.max()) for part in parts))
        return torch.cat([torch.nn.functional.pad(part, (0, width - part.shape[1]), value=worst) for part in parts])

    def configure_optimizers(self) -> Any:
        """AdamW without decay on vectors (biases, norms), and the schedule, stepped every batch."""
        matrices = [p for p in self.parameters() if p.requires_grad and p.dim() > 1]
        vectors = [p for p in self.parameters() if p.requires_grad and p.dim() <= 1]
        optimizer = torch.optim.AdamW(
            [{"params": matrices, "weight_decay": self.weight_decay}, {"params": vectors, "weight_decay": 0.0}],
            lr=self.lr,
            fused=True,
        )
        # A run without an end (max_epochs=-1) has no length to bend a schedule over.
        total = float("inf") if self.schedule == "constant" else float(self.trainer.estimated_stepping_batches)
        if self.schedule != "constant" and total == float("inf"):
            raise InputError(
                f"model.schedule {self.schedule} needs an end: set trainer.max_epochs or trainer.max_steps"
            )

        def rate(step: int) -> float:
            done = min(1.0, step / total)
            bend = {"constant": 1.0, "linear": 1 - done, "cosine": 0.5 * (1 + math.cos(math.pi * done))}[self.schedule]
            return min(1.0, (step + 1) / max(self.warmup_steps, 1)) * bend

        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def configure_gradient_clipping(
        self, optimizer: Any, gradient_clip_val: float | None = None, gradient_clip_algorithm: str | None = None
    ) -> None:
        """Clips by norm under bf16 too, where Lightning refuses beside a fused optimiser.

        Only float16 scales its gradients, which is what that refusal is about.
        """
        if self.trainer.precision == "bf16-mixed" and gradient_clip_val and gradient_clip_algorithm in (None, "norm"):
            torch.nn.utils.clip_grad_norm_(self.parameters(), gradient_clip_val)
        else:
            super().configure_gradient_clipping(optimizer, gradient_clip_val, gradient_clip_algorithm)

    def on_train_epoch_start(self) -> None:
        """Seeds the epoch by its number, so that a run resumed after epoch n draws what the uninterrupted one drew."""
        seed = int(os.environ.get("PL_GLOBAL_SEED", "0"))
        torch.manual_seed(seed * 1_000_003 + self.current_epoch * 1_009 + self.global_rank)

    # -- checkpoints --------------------------------------------------------------------------------------------------

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keeps which dataset the ids belong to."""
        checkpoint["dataset"] = self.trainer.datamodule.dataset.info["fingerprint"]  # type: ignore[attr-defined]

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuses a checkpoint whose ids mean other items."""
        info = self.trainer.datamodule.dataset.info  # type: ignore[attr-defined]
        if checkpoint.get("dataset") != info["fingerprint"]:
            raise InputError(
                f"this checkpoint was trained on dataset {checkpoint.get('dataset')}, but the config prepares"
                f" {info['name']} {info['fingerprint']}; use the run's own config.yaml and data"
            )


class RecModule(Module):
    """A recommender that is ranked over the whole catalogue.

    A subclass says how to train (`training_step`) and how to score (`scores`); evaluation is the same for all.

    Args:
        cutoffs: k of the metrics.
        **optimisation: see Module.
    """

    monitor = "val/ndcg@10"
    headline = ("hit_rate@10", "ndcg@10", "hit_rate@100")
    serves_new_users: ClassVar[bool] = True
    """Whether `scores` makes sense for a user of whom nothing but the history is known (user_id 0)."""

    def __init__(self, cutoffs: tuple[int, ...] = (5, 10, 20, 50, 100), **optimisation: Any) -> None:
        super().__init__(**optimisation)
        self.cutoffs = cutoffs
        self._catalogue: Catalogue | None = None
        self._taste: dict[str, Tensor] = {}  # (U + 1, G) genres of the histories before the part

    @abstractmethod
    def scores(self, batch: EvalBatch) -> Tensor:
        """(B, N + 1) scores of all items for each user of the batch; column 0, the padding, is ignored."""

    @abstractmethod
    def item_embeddings(self) -> Tensor:
        """(N + 1, D) item vectors; row 0 is the padding."""

    @abstractmethod
    def user_embeddings(self, batch: EvalBatch) -> Tensor:
        """(B, D) vectors of the batch's users, to go with `item_embeddings`."""

    def train_loader(self, data: RecDataModule) -> Any:
        """Shuffled sequences of like length."""
        device, rank, world_size = data.place()
        return TrainLoader(
            data.dataset, data.max_seq_len, data.tokens_per_batch, device, data.seed, data.all_windows, rank, world_size
        )

    def eval_loader(self, data: RecDataModule, split: int) -> EvalLoader:
        """Users that have items in the part."""
        device, rank, world_size = data.place()
        size = users_at_once(data.eval_batch_size, data.num_items)
        return EvalLoader(data.dataset, split, data.max_seq_len, size, device, rank, world_size)

    def vectors_to_export(self) -> dict[str, Tensor]:
        """Item vectors."""
        return {"item_embeddings": self.item_embeddings()}

    def protocol(self, data: RecDataModule) -> dict[str, Any]:
        """Full ranking."""
        own = {"candidates": "all items", "seen_filter": "the whole history", "target_time_is_input": False}
        return {**super().protocol(data), **own}

    # -- evaluation ---------------------------------------------------------------------------------------------------

    list_length: ClassVar[int] = 10
    """Places of the lists whose novelty, diversity, ... are measured."""

    @property
    def catalogue(self) -> Catalogue:
        """Popularity and genres of the dataset's items, on the device."""
        if self._catalogue is None:
            self._catalogue = catalogue_of(self._dataset(), self.device)
        return self._catalogue

    def _dataset(self) -> Dataset:
        return self.trainer.datamodule.dataset  # type: ignore[attr-defined, no-any-return]

    def evaluate(self, batch: EvalBatch) -> tuple[Tensor, ...]:
        """Ranks and the top of the list, of all items not seen by the user.

        Returns:
            (B,) users, (B, T) ranks of their targets, (B,) numbers of targets; the last two again for the targets that
            are cold items, and again for those in a list of cold items alone; (B, list_length) the top items.
        """
        scores = unseen_scores(self.scores(batch), batch)
        target = batch.target_item
        ranks = target_ranks(scores, target)
        cold = self.catalogue.tier == TIERS.index("cold")
        cold[0] = False
        is_cold = cold[target] & (target > 0)
        column = cold.cumsum(0) * cold  # place of a cold item among the cold ones, which stand behind the padding
        cold_scores = scores[:, torch.cat([cold.new_zeros(1).long(), cold.nonzero()[:, 0]])]
        best, top = torch.topk(scores, min(self.list_length, scores.shape[1] - 1))
        return (
            batch.user_id, ranks, (target > 0).sum(1),
            ranks.masked_fill(~is_cold, scores.shape[1]), target_ranks(cold_scores, column[target]), is_cold.sum(1),
            top.masked_fill(best == -torch.inf, 0),
        )  # fmt: skip

    def finish(self, prefix: str, columns: list[Tensor]) -> dict[str, float]:
        """Means over users; of the lists' measures over those for whom they are defined."""
        user, ranks, counts, cold_ranks, cold_list_ranks, cold_counts, lists = columns
        per_user = ranking_metrics(ranks, counts, self.cutoffs)
        result = {name: float(value.double().mean()) for name, value in per_user.items()}
        if prefix not in self._taste:
            split = {"val": VAL, "test": TEST}[prefix]
            self._taste[prefix] = genre_tastes(self._dataset(), self.catalogue.genres, split)
        of_lists, overall = list_measures(lists, self.catalogue, self._taste[prefix][user])
        cold, cold_means = cold_metrics(cold_ranks, cold_list_ranks, cold_counts, self.list_length)
        self.results = {"user_id": user, "rank": ranks.amin(1), **per_user, **of_lists, **cold}
        return result | overall | cold_means


def users_at_once(batch_size: int, num_items: int) -> int:
    """`batch_size`, or fewer users where their scores of all items would be more than 2^26 numbers (256 MB)."""
    return max(1, min(batch_size, 2**26 // (num_items + 1)))


def unseen_scores(scores: Tensor, batch: EvalBatch) -> Tensor:
    """(B, N + 1) float32 scores for ranking: -inf at the padding and at what the user has seen."""
    scores = scores.float()
    scores[:, 0] = -torch.inf
    scores[batch.seen_row, batch.seen_item] = -torch.inf
    return scores


def cold_metrics(
    ranks: Tensor, list_ranks: Tensor, counts: Tensor, k: int
) -> tuple[dict[str, Tensor], dict[str, float]]:
    """How well targets without any training interaction are found.

    Args:
        ranks: (U, T) of the cold targets among all items. list_ranks: (U, T) among cold items alone.
        counts: (U,) how many cold targets a user has. k: cutoff.

    Returns:
        (U,) recall and NDCG at k of both, NaN for users without a cold target, and the means over the others with
        their number; empty where nobody has one.
    """
    has = counts > 0
    if not bool(has.any()):
        return {}, {}
    per_user: dict[str, Tensor] = {}
    for name, of in (("cold", ranks), ("cold_list", list_ranks)):
        metrics = ranking_metrics(of[has], counts[has], (k,))
        for metric in (f"recall@{k}", f"ndcg@{k}"):
            per_user[f"{name}_{metric}"] = torch.full(counts.shape, torch.nan, device=counts.device)
            per_user[f"{name}_{metric}"][has] = metrics[metric]
    means = {name: float(value.double().nanmean()) for name, value in per_user.items()}
    return per_user, {**means, "cold_users": float(has.sum())}
