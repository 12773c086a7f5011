"""RetrievalCallback: retrieved histories are made before training and again between epochs, and kept in the run."""

from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import lightning as L
import numpy as np
import polars as pl
import torch
from lightning.pytorch.callbacks import Callback

from msmrec.artifacts import InputError, atomic_file
from msmrec.columns import ITEM_ID, TEST, USER_ID, VAL
from msmrec.data.datamodule import RecDataModule
from msmrec.data.samples import sample_rows
from msmrec.retrieval.index import ItemIndex
from msmrec.retrieval.retriever import Retriever

PROBES = 2_000  # validation samples on which the retrieval metrics are measured


@runtime_checkable
class ReadsPrompts(Protocol):
    """A model whose batches are prompts. It asks `histories` for them when its loaders are made."""

    histories: "RetrievalCallback | None"
    retriever: Retriever

    def train_rows(self, data: RecDataModule, epoch: int) -> np.ndarray:
        """(S,) the samples of a training epoch."""

    def aligned_vectors(self) -> torch.Tensor | None:
        """(N + 1, D) aligned vectors as they are now, or None where nothing of them is trained."""

    def prompt_texts(self, data: RecDataModule, rows: np.ndarray, history: np.ndarray) -> list[str]:
        """Prompts as text."""


class RetrievalCallback(Callback):
    """Builds vectors, index, histories and prompts, hands them to the model, and writes prompts/epoch=N.parquet.

    How histories are chosen is the model's `retriever`.

    Built when Lightning asks for the loader of an epoch: before the first one, and where `every_n_epochs` is not 0
    before each, for which `trainer.reload_dataloaders_every_n_epochs` must be 1, or Lightning would go on with the
    loader of the first epoch. Validation has the vectors that its epoch ends with then. A resumed run takes the
    histories that its file holds.

    Args:
        every_n_epochs: epochs between builds; 0 builds once. Where the model trains no vectors, a rebuild finds what
            was there before, and `retrieval/overlap@k` says so with 1.
        index: the catalogue's index, for `retrieval/hit`.
        texts: prompts in each parquet file that are written out as text, the others as rows only.
    """

    def __init__(self, every_n_epochs: int = 0, index: ItemIndex | None = None, texts: int = 200) -> None:
        self.every_n_epochs, self.index, self.texts = every_n_epochs, index, texts
        self._training: tuple[np.ndarray, np.ndarray] | None = None
        self._built = -1  # epoch of the last build
        self._probe: np.ndarray | None = None  # last build's histories of the probes
        self.metrics: dict[str, float] = {}  # of the last build
        self._stale = True  # vectors are not those of the present weights
        self._trained = False  # the model trains vectors

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Has the validation loader made again after this epoch: Lightning has made the first one before training."""
        trainer.fit_loop.epoch_loop.val_loop._last_val_dl_reload_epoch = float("-inf")

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Notes that vectors have moved: validation comes before the epoch's end."""
        self._stale |= self._trained

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Checks that loaders are reloaded as often as histories are rebuilt."""
        if not isinstance(pl_module, ReadsPrompts):
            raise InputError(f"RetrievalCallback serves models that read prompts, not {type(pl_module).__name__}")
        reload = trainer.reload_dataloaders_every_n_epochs  # type: ignore[attr-defined]
        # Not every_n_epochs: Lightning would count from where a resumed run goes on, not from the last build.
        if stage == "fit" and reload != min(self.every_n_epochs, 1):
            raise InputError(
                f"trainer.reload_dataloaders_every_n_epochs is {reload}, but with RetrievalCallback.every_n_epochs"
                f" {self.every_n_epochs} it must be {min(self.every_n_epochs, 1)}: epochs would train on stale prompts"
            )
        pl_module.histories = self
        self._stale = True

    def for_training(self, pl_module: Any, data: RecDataModule) -> tuple[np.ndarray, np.ndarray]:
        """(S,) samples of the epoch that comes and (S, K) their histories, best first. Called when its loader is made.

        By then the epoch's number and the weights of a resumed run are back; in `on_fit_start` the number is not.
        """
        epoch = pl_module.current_epoch
        epoch -= epoch % self.every_n_epochs if self.every_n_epochs else epoch
        if self._built != epoch:
            self._training, self._built = self._build(pl_module, data, epoch), epoch
        assert self._training is not None
        return self._training

    def for_evaluation(self, pl_module: Any, data: RecDataModule, rows: np.ndarray) -> np.ndarray:
        """(S, K) histories in the order of the prompt. Called when weights are restored and loaders are made."""
        if self._stale:
            self._make_vectors(data, pl_module)
        history: np.ndarray = pl_module.retriever.arrange(pl_module.retriever.choose(data, rows))
        return history

    def keep_test_prompts(self, run: Path, pl_module: Any, data: RecDataModule) -> None:
        """Writes prompts/test.parquet, test samples spread evenly over the part, for people to look at."""
        rows = sample_rows(data.dataset, TEST)
        rows = rows[np.unique(np.linspace(0, len(rows) - 1, self.texts).round().astype(np.int64))]
        self._write(run / "prompts" / "test.parquet", data, pl_module, rows, pl_module.retriever.choose(data, rows))

    def _make_vectors(self, data: RecDataModule, pl_module: Any) -> None:
        training = pl_module.training
        pl_module.eval()
        with torch.no_grad():
            moving = pl_module.aligned_vectors()
        pl_module.train(training)
        pl_module.retriever.build(data, None if moving is None else moving.float().cpu().numpy())
        self._stale, self._trained = False, moving is not None

    def _build(self, pl_module: Any, data: RecDataModule, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        trainer = pl_module.trainer
        self._make_vectors(data, pl_module)
        path = Path(trainer.default_root_dir) / "prompts" / f"epoch={epoch}.parquet"
        rows = pl_module.train_rows(data, epoch)
        # Only a resumed run trusts a file that is there: a run killed in its first epoch may have left another's.
        kept = trainer.ckpt_path is not None and _read(path, rows) is not None
        if trainer.is_global_zero and not trainer.fast_dev_run and not kept:
            self._write(path, data, pl_module, rows, pl_module.retriever.choose(data, rows))
        trainer.strategy.barrier("prompts")
        chosen = _read(path, rows)
        self._measure(data, pl_module, sample_rows(data.dataset, VAL))
        return rows, pl_module.retriever.choose(data, rows) if chosen is None else chosen

    def _measure(self, data: RecDataModule, pl_module: Any, rows: np.ndarray) -> None:
        """Logs how much the probes' histories changed, and how often the index alone finds something rated."""
        rows = rows[:: max(1, len(rows) // PROBES)]
        chosen = pl_module.retriever.choose(data, rows)
        metrics = {}
        if self._probe is not None:
            same = (chosen[:, :, None] == self._probe[:, None, :]) & (chosen[:, :, None] >= 0)
            metrics[f"retrieval/overlap@{chosen.shape[1]}"] = same.sum() / max((chosen >= 0).sum(), 1)
        # A resumed run asks for its loader twice, with the same weights: that is no rebuild to compare with.
        self._probe = None if self._built < 0 and pl_module.trainer.ckpt_path is not None else chosen
        if self.index is not None and pl_module.retriever.spaces:
            metrics["retrieval/hit"] = self._hit(pl_module, data, rows)
        for logger in pl_module.trainer.loggers:
            logger.log_metrics({name: float(value) for name, value in metrics.items()}, pl_module.trainer.global_step)
        self.metrics = {name: float(value) for name, value in metrics.items()}

    def _hit(self, pl_module: Any, data: RecDataModule, rows: np.ndarray) -> float:
        """Share of samples that have, among the target's K nearest items of the catalogue, one that the user rated."""
        assert self.index is not None
        vectors, dataset = pl_module.retriever.spaces[0], data.dataset
        self.index.build(vectors, catalogue=dataset.info["fingerprint"])
        target = dataset.item_id[rows]
        k = pl_module.retriever.k
        _, near = self.index.search(vectors[target], k + 1)  # the target itself is among them
        near = np.take_along_axis(near, np.argsort(near == target[:, None], axis=1, kind="stable")[:, :k], 1)
        # Pairs (user, item) rated before the sample, looked up in one sorted list: code -> first row.
        wide = dataset.num_items + 1
        code = dataset.user_id.astype(np.int64) * wide + dataset.item_id
        order = np.argsort(code, kind="stable")
        asked = dataset.user_id[rows].astype(np.int64)[:, None] * wide + near
        place = np.minimum(np.searchsorted(code[order], asked), len(code) - 1)
        found = (code[order][place] == asked) & (order[place] < rows[:, None]) & (near != target[:, None])
        found &= near > 0  # -1 where the index found fewer than K
        return float(found.any(1).mean())

    def _write(self, path: Path, data: RecDataModule, pl_module: Any, rows: np.ndarray, chosen: np.ndarray) -> None:
        shown = pl_module.retriever.arrange(chosen[: self.texts])
        texts = pl_module.prompt_texts(data, rows[: self.texts], shown)
        frame = pl.DataFrame(
            {
                "row": rows,
                USER_ID: data.dataset.user_id[rows],
                ITEM_ID: data.dataset.item_id[rows],
                "history": pl.Series(chosen, dtype=pl.Array(pl.Int32, chosen.shape[1])),
                "prompt": [*texts, *[None] * (len(rows) - len(texts))],
            },
            schema_overrides={"prompt": pl.String},
        )
        with atomic_file(path) as temporary:
            frame.write_parquet(temporary)


def _read(path: Path, rows: np.ndarray) -> np.ndarray | None:
    """(S, K) histories of a prompts file, if it is there and about these samples."""
    if not path.is_file():
        return None
    frame = pl.read_parquet(path, columns=["row", "history"])
    if not np.array_equal(frame["row"].to_numpy(), rows):
        return None
    return frame["history"].to_numpy()
