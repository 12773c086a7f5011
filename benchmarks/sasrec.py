"""SASRec on ML-1M through the Trainer of train.py: seconds of a training epoch and of the full ranking of all users.

    python benchmarks/sasrec.py --accelerator gpu     # waits for the GPU after every step, so an upper bound

Hands the encoded interactions and their split to the peers, as benchmarks/.work/sasrec.npz.
"""

import tempfile
import time
from typing import Any

import numpy as np
import torch
from common import arguments, emit, peak_mb, quarters, seconds
from lightning.pytorch.callbacks import Callback, EarlyStopping

from msmrec.cli import build
from msmrec.columns import SPLIT, TIMESTAMP

TINY = '{"class_path": "Simulated", "init_args": {"num_users": 120, "num_items": 60, "mean_interactions": 14}}'


class BatchClock(Callback):
    """Seconds of each batch of the last epoch."""

    def on_train_epoch_start(self, *_: Any) -> None:
        self.taken: list[float] = []
        self.last = time.perf_counter()

    def on_train_batch_end(self, *_: Any) -> None:
        if torch.cuda.is_initialized():
            torch.cuda.synchronize()
        now = time.perf_counter()
        self.taken.append(now - self.last)
        self.last = now


def main() -> None:
    given = arguments(__doc__, epochs=1, precision="auto", accelerator="cpu")
    with tempfile.TemporaryDirectory() as folder:
        args = ["--config", "sasrec_ml1m.yaml", "--data.root", str(given.root), "--data.cache", str(given.cache)]
        if given.quick:
            args += ["--data.source", TINY, "--data.root", folder, "--data.cache", folder]
        args += ["--data.all_windows", "false"]  # as the peers train: on each user's latest 200
        args += ["--run_dir", folder, "--trainer.enable_progress_bar", "false"]
        args += ["--trainer.max_epochs", str(given.epochs), "--trainer.limit_val_batches", "0"]
        args += ["--trainer.accelerator", given.accelerator]
        args += [] if given.precision == "auto" else ["--trainer.precision", given.precision]
        cli = build([*args, "--model.init_args.schedule", "constant"], save=False)
        data, clock = cli.datamodule.dataset, BatchClock()
        time_, split = data.column(TIMESTAMP), data.column(SPLIT)
        np.savez(given.work / "sasrec.npz", user=data.user_id, item=data.item_id, time=time_, split=split)
        # nothing is validated, so nothing stops early
        cli.trainer.callbacks = [c for c in cli.trainer.callbacks if not isinstance(c, EarlyStopping)] + [clock]
        cli.trainer.fit(cli.model, datamodule=cli.datamodule)
        tested: list[Any] = []
        ranking = seconds(
            lambda: tested.extend(cli.trainer.test(cli.model, datamodule=cli.datamodule, verbose=False)), 5
        )
    emit(
        "ours" if given.precision == "auto" else "ours, float32",
        {"training, an epoch": quarters(clock.taken), "full ranking of all users": ranking},
        ("torch", "lightning"),
        quality={f"NDCG@10 after {given.epochs} epochs": round(tested[0]["test/ndcg@10"], 4)},
        peak_mb=round(torch.cuda.max_memory_allocated() / 2**20 if torch.cuda.is_initialized() else peak_mb()),
        note=f"{len(data.item_id):,} interactions, {data.num_users:,} users, {data.num_items:,} items; lr .003, batches"
        f" of 4,096 positions, {cli.trainer.precision}; scores are ranked in float32 whatever the precision; the"
        " ranking also measures novelty,"
        " diversity, cold items; spread over the quarters of the last epoch",
    )


if __name__ == "__main__":
    main()
