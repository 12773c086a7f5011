"""What a training leaves in its run folder: metrics.json, per_user.parquet, item_embeddings.safetensors."""

import platform
import subprocess
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import lightning as L
import polars as pl
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.trainer.states import TrainerFn

from msmrec.artifacts import atomic_file, write_json
from msmrec.columns import ITEM_ID, RAW_USER_ID, USER_ID
from msmrec.data.datamodule import RecDataModule
from msmrec.models.base import Module
from msmrec.models.click import ClickModule


class Clock(Callback):
    """Times the training epochs, validation apart, and counts the positions."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.tokens = 0
        self._begun = 0.0
        self.started = time.time()

    def state_dict(self) -> dict[str, Any]:
        """So that a resumed run's times are those of all its sessions."""
        return {"seconds": self.seconds, "tokens": self.tokens, "elapsed": time.time() - self.started}

    def on_load_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Goes on from there in training; Lightning restores callbacks when it evaluates the best checkpoint too."""
        state = checkpoint.get("callbacks", {}).get(self.state_key)
        if state and trainer.state.fn == TrainerFn.FITTING:
            self.seconds, self.tokens = list(state["seconds"]), state["tokens"]
            self.started -= state["elapsed"]

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """The GPU's peak is this training's, not that of what was made for it before."""
        if torch.cuda.is_available() and trainer.strategy.root_device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(trainer.strategy.root_device)

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Starts an epoch."""
        self._begun = time.perf_counter()

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """The last batch ends the epoch's training; validation comes after it."""
        self.tokens += batch.num_tokens
        if trainer.is_last_batch:
            if trainer.strategy.root_device.type == "cuda":
                torch.cuda.synchronize()
            self.seconds.append(time.perf_counter() - self._begun)


def peak_memory_mb(device: torch.device) -> float:
    """Of the GPU, or else of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def git_commit() -> str | None:
    """The commit of this package's working tree, with '+' where files differ from it."""
    try:
        command = ["git", "describe", "--always", "--dirty=+"]
        head = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, check=True)
        return head.stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def write_results(
    run: Path,
    model: Module,
    data: RecDataModule,
    config: str,
    val: dict[str, float],
    test: dict[str, float],
    clock: Clock,
) -> None:
    """Writes per_user.parquet, predictions.parquet for click models, and metrics.json; see docs/how_it_works.md."""
    info = data.dataset.info
    if model.results:
        # What a user's list does not determine is null, not NaN: polars would take NaN for the largest number.
        results = pl.DataFrame({k: v.cpu().numpy() for k, v in model.results.items()}).fill_nan(None)
        users = data.dataset.users.select(USER_ID, RAW_USER_ID)
        table = results.with_columns(pl.col(USER_ID).cast(pl.Int32)).join(users, on=USER_ID, how="left").sort(USER_ID)
        with atomic_file(run / "per_user.parquet") as path:
            table.write_parquet(path)
    if isinstance(model, ClickModule):
        with atomic_file(run / "predictions.parquet") as path:
            pl.DataFrame({k: v.cpu().numpy() for k, v in model.predictions.items()}).with_columns(
                pl.col(USER_ID, ITEM_ID, "label").cast(pl.Int32)
            ).write_parquet(path)
    trainer = model.trainer
    device = trainer.strategy.root_device
    seconds = sum(clock.seconds)
    write_json(
        run / "metrics.json",
        {
            "config": config,
            "git_commit": git_commit(),
            "seed": data.seed,
            "dataset": {k: v for k, v in info.items() if k != "protocol"},
            "protocol": {**info["protocol"], **model.protocol(data)},
            "val": _plain(val),
            "test": _plain(test),
            "versions": {name: version(name) for name in ("msmrec", "torch", "lightning", "transformers", "polars")}
            | {"python": platform.python_version()},
            "upstream": {name: str(path) for name, path in data.upstream.items()},
            "train": {
                "epochs": trainer.current_epoch,
                "best_epoch": _best_epoch(trainer),
                "seconds": round(time.time() - clock.started, 1),
                "seconds_per_epoch": round(seconds / max(len(clock.seconds), 1), 2),
                "tokens_per_second": round(clock.tokens / max(seconds, 1e-9)),
                "peak_memory_mb": round(peak_memory_mb(device)),
                "parameters": sum(p.numel() for p in model.parameters()),
                "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
                "threads": torch.get_num_threads(),
                "precision": str(trainer.precision),
            },
        },
    )


def _plain(metrics: dict[str, float]) -> dict[str, float]:
    return {name.split("/", 1)[1]: value for name, value in metrics.items() if "/" in name}


def _best_epoch(trainer: L.Trainer) -> int | None:
    path = getattr(trainer.checkpoint_callback, "best_model_path", "")
    return int(torch.load(path, map_location="cpu", weights_only=False)["epoch"]) if path else None


def export_vectors(run: Path, model: Module) -> None:
    """Writes the vectors that others may build on, float32, as item_embeddings.safetensors, if the model has any."""
    from safetensors.torch import save_file

    with torch.no_grad():
        model.eval()
        vectors = {name: v.float().contiguous().cpu() for name, v in model.vectors_to_export().items()}
    if vectors:
        with atomic_file(run / "item_embeddings.safetensors") as path:
            save_file(vectors, path)
