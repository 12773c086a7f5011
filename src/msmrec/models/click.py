"""ClickModule, the base of models that predict a click: AUC, log loss, calibration over a whole part."""

from abc import abstractmethod
from collections.abc import Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from msmrec.artifacts import InputError
from msmrec.columns import ITEM_ID, RATING, TRAIN, USER_ID
from msmrec.data.datamodule import RecDataModule
from msmrec.data.samples import SampleBatch, SampleLoader, sample_rows
from msmrec.metrics.ctr import best_threshold, ctr_metrics, user_auc
from msmrec.models.base import Module

EVAL_SAMPLES = 16  # samples in an evaluation batch for each user that data.eval_batch_size allows


class ClickModule(Module):
    """A model of the probability that a user likes an item.

    A subclass gives `logits`; where it reads other batches than SampleBatch, also the loaders. Evaluation is over all
    samples of a part, none left out. The threshold that `accuracy_calibrated` uses is fitted on validation and kept in
    the checkpoint.

    Args:
        **optimisation: see Module.
    """

    monitor = "val/auc"
    headline = ("auc", "log_loss", "accuracy", "user_auc", "ece")
    max_history = 30
    threshold: Tensor

    def __init__(self, **optimisation: Any) -> None:
        super().__init__(**optimisation)
        self.predictions: dict[str, Tensor] = {}  # of the last evaluation: (S,) user_id, item_id, label, prob
        self.register_buffer("threshold", torch.tensor(0.5, dtype=torch.float64))  # as the probabilities

    @abstractmethod
    def logits(self, batch: Any) -> Tensor:
        """(B,) log odds of a click."""

    def on_fit_start(self) -> None:
        """Refuses labels that are all the same, which teach nothing."""
        data = self.data
        rating = data.dataset.column(RATING)[sample_rows(data.dataset, TRAIN)]
        low, high = rating.min(), rating.max()
        if low > data.label_above or high <= data.label_above:
            kind = "clicks" if low > data.label_above else "none"
            raise InputError(
                f"data.label_above {data.label_above:g}: all {len(rating):,} training samples are {kind}, as ratings go"
                f" from {low:g} to {high:g}; set it between them, or take a ranking model where there are no ratings"
            )

    def train_loader(self, data: RecDataModule) -> Any:
        """Shuffled samples."""
        return self._loader(data, TRAIN, data.batch_size)

    def eval_loader(self, data: RecDataModule, split: int) -> Any:
        """All samples of the part."""
        return self._loader(data, split, data.eval_batch_size * EVAL_SAMPLES)

    def _loader(self, data: RecDataModule, split: int, batch_size: int) -> SampleLoader:
        device, rank, world_size = data.place()
        return SampleLoader(
            data.dataset, split, data.label_above, self.max_history, batch_size, device, split == TRAIN, data.seed,
            rank, world_size,
        )  # fmt: skip

    def protocol(self, data: RecDataModule) -> dict[str, Any]:
        """Global time."""
        own = {"label": f"rating > {data.label_above:g}", "history": "all earlier ratings of the user"}
        return {**super().protocol(data), **own}

    def training_step(self, batch: SampleBatch, batch_idx: int) -> Tensor:
        """Mean binary cross-entropy."""
        loss = F.binary_cross_entropy_with_logits(self.logits(batch).float(), batch.label)
        self.log("train/loss", loss, prog_bar=True, batch_size=len(batch.label))
        return loss

    def evaluate(self, batch: Any) -> tuple[Tensor, ...]:
        """(B,) users, items, labels and probabilities; these in float64, as float32 takes all logits above 17 for 1."""
        return batch.user_id, batch.target_item, batch.label, torch.sigmoid(self.logits(batch).double())

    def probabilities(self, loader: Iterable[Any]) -> Tensor:
        """(S,) float64 probabilities of the loader's samples, in the precision of an evaluation."""
        with torch.inference_mode(), self.trainer.precision_plugin.forward_context():
            return torch.cat([self.evaluated(batch)[3] for batch in loader])

    def finish(self, prefix: str, columns: list[Tensor]) -> dict[str, float]:
        """Metrics over all samples; validation fits the threshold."""
        user, item, label, probs = columns
        if prefix == "val":
            self.threshold.copy_(best_threshold(probs, label))
        per_user = user_auc(probs, label, user)
        self.predictions = {USER_ID: user, ITEM_ID: item, "label": label, "prob": probs}
        self.results = per_user._asdict()
        return ctr_metrics(probs, label, per_user, self.threshold)
