"""RecTools' SASRecModel: fit, then recommend without what was seen."""

import warnings

import numpy as np
import pandas as pd
import torch
from common import arguments, emit, quarters, seconds
from peers.clock import batch_clock
from peers.sequences import histories, load
from pytorch_lightning import Callback, Trainer
from rectools import Columns
from rectools.dataset import Dataset
from rectools.models import SASRecModel

warnings.filterwarnings("ignore")


def table(data, parts):
    keep = np.isin(data["split"], parts)
    frame = {Columns.User: data["user"][keep], Columns.Item: data["item"][keep], Columns.Weight: 1.0}
    # one second apart, so that equal times keep their order
    return pd.DataFrame({**frame, Columns.Datetime: pd.to_datetime(np.arange(keep.sum()), unit="s")})


def main():
    given = arguments(__doc__, epochs=1)
    data, clock = load(given.work), batch_clock(Callback)

    def trainer(**kwargs):
        return Trainer(
            max_epochs=given.epochs, min_epochs=given.epochs, accelerator="cpu", logger=False, callbacks=[clock],
            enable_checkpointing=False, enable_progress_bar=False,
        )  # fmt: skip

    torch.manual_seed(0)
    model = SASRecModel(
        n_blocks=2, n_heads=1, n_factors=64, dropout_rate=0.1, session_max_len=200, loss="softmax", lr=1e-3,
        batch_size=128, epochs=given.epochs, get_trainer_func=trainer, recommend_torch_device="cpu",
    )  # fmt: skip
    model.fit(Dataset.construct(table(data, [0])))
    if not clock.taken:  # some versions copy the trainer, callbacks and all
        clock = next(c for c in model.fit_trainer.callbacks if hasattr(c, "taken"))
    known, targets = Dataset.construct(table(data, [0, 1])), histories(data, [2])
    users, lists = np.array(list(targets)), []

    def rank():
        lists[:] = [model.recommend(users, known, k=10, filter_viewed=True)]

    ranking = seconds(rank, 5)
    frame = lists[0]
    found = frame.merge(pd.DataFrame({Columns.User: users, "target": [targets[u][0] for u in users]}), on=Columns.User)
    hit = found[found[Columns.Item] == found["target"]]
    quality = float((1 / np.log2(hit[Columns.Rank] + 1)).sum() / len(users))
    emit(
        "RecTools",
        {"training, an epoch": quarters(clock.taken[-1]), "full ranking of all users": ranking},
        ("rectools", "torch", "pytorch-lightning"),
        quality={f"NDCG@10 after {given.epochs} epochs": round(quality, 4)},
        note="float32, lr .001, 128 users a batch, its own data preparation and ranking; spread over quarters",
    )


if __name__ == "__main__":
    main()
