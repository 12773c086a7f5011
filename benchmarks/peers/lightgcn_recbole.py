"""RecBole's LightGCN on the same edges: some steps, scaled to the epoch."""

import numpy as np
from common import arguments, emit, quarters
from peers.recbole_data import build, step_seconds, write


def main():
    given = arguments(__doc__, steps=16)
    with np.load(given.work / "lightgcn.npz") as file:
        write(given.work, "lightgcn", {"user_id:token": file["user"], "item_id:token": file["item"]})
    _, _, (train, _, _), model = build(
        "LightGCN", "lightgcn", given.work, embedding_size=64, n_layers=3, train_batch_size=2048,
        load_col={"inter": ["user_id", "item_id"]},
        eval_args={"split": {"RS": [0.99, 0.005, 0.005]}, "order": "RO", "group_by": "user", "mode": "full"},
    )  # fmt: skip
    taken = step_seconds(model, train, given.steps)
    emit(
        "RecBole",
        {"an epoch, BPR, batches of 2,048": quarters(taken, len(train))},
        ("recbole", "torch", "numpy"),
        note=f"{given.steps} of {len(train)} steps, scaled, its own negatives; 99% of the edges",
    )


if __name__ == "__main__":
    main()
