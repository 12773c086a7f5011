"""What all models share: optimiser and schedule, evaluation over processes, resuming that changes nothing."""

import math
import os
from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, Literal

import lightning as L
import torch
from torch import Tensor

from msmrec.artifacts import InputError
from msmrec.data.datamodule import RecDataModule


@contextmanager
def exact_products(enabled: bool = True) -> Iterator[None]:
    """Float32 products without TF32, which rounds what goes into them to ten bits."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest" if enabled else before)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


class Module(L.LightningModule):
    """A model trained by Lightning.

    Args:
        lr: learning rate (Adam), above 0.
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
        if not lr or lr < 0:
            raise InputError(f"model.lr {lr}: a number above 0")
        self.lr, self.weight_decay, self.schedule, self.warmup_steps = lr, weight_decay, schedule, warmup_steps
        self._parts: list[tuple[Tensor, ...]] = []  # what `evaluate` gave, batch by batch
        self.results: dict[str, Tensor] = {}  # of the last evaluation: (U,) user_id and metrics of each user

    @property
    def data(self) -> RecDataModule:
        """What the trainer serves."""
        served: RecDataModule = self.trainer.datamodule  # type: ignore[attr-defined]
        return served

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

    def evaluated(self, batch: Any) -> tuple[Tensor, ...]:
        """What `evaluate` gives, in the precision of an evaluation."""
        enabled = torch.is_autocast_enabled(self.device.type) and not self.exact_evaluation
        with exact_products(self.exact_evaluation), torch.autocast(self.device.type, enabled=enabled):
            return self.evaluate(batch)

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """Keeps what `evaluate` gives."""
        self._parts.append(self.evaluated(batch))

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
        with exact_products(self.exact_evaluation):
            finished = self.finish(prefix, self.gather(*columns))
        metrics = {f"{prefix}/{name}": value for name, value in finished.items()}
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
            fused=self.trainer.precision != "16-mixed",  # whose scaled gradients Lightning does not clip beside it
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

    def on_train_epoch_end(self) -> None:
        """Stops a training that diverged, before a checkpoint of it is kept as the last.

        Raises:
            InputError: a weight is NaN or infinite.
        """
        for name, weight in self.named_parameters():
            if weight.requires_grad and not bool(weight.isfinite().all()):
                raise InputError(
                    f"epoch {self.current_epoch}: {name} is NaN or infinite, training diverged; start again in another"
                    " --run_dir with a lower model.lr or more model.warmup_steps"
                )

    # -- checkpoints --------------------------------------------------------------------------------------------------

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keeps which dataset the ids belong to."""
        checkpoint["dataset"] = self.data.dataset.info["fingerprint"]

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuses a checkpoint whose ids mean other items; `load_from_checkpoint` has no trainer that knows them."""
        if self._trainer is None:
            return
        info = self.data.dataset.info
        if checkpoint.get("dataset") != info["fingerprint"]:
            raise InputError(
                f"this checkpoint was trained on dataset {checkpoint.get('dataset')}, but the config prepares"
                f" {info['name']} {info['fingerprint']}; use the run's own config.yaml and data"
            )
