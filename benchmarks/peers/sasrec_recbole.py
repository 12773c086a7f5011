"""RecBole's SASRec, which trains on a padded row of every prefix: some steps, scaled to the epoch."""

import numpy as np
import torch
from common import arguments, emit, quarters, seconds
from peers.recbole_data import build, step_seconds, write
from peers.sequences import load


def main():
    given = arguments(__doc__, steps=10)
    data = load(given.work)
    order = np.arange(len(data["user"]))  # for its times: equal ones keep their order
    columns = {"user_id:token": data["user"], "item_id:token": data["item"], "timestamp:float": order}
    write(given.work, "sasrec", columns)
    _, _, (train, _, test), model = build(
        "SASRec", "sasrec", given.work, MAX_ITEM_LIST_LENGTH=200, n_heads=1, inner_size=64, hidden_dropout_prob=0.1,
        attn_dropout_prob=0.1, train_neg_sample_args=None, train_batch_size=256, eval_batch_size=256,
        load_col={"inter": ["user_id", "item_id", "timestamp"]},
        eval_args={"split": {"LS": "valid_and_test"}, "order": "TO", "group_by": "user", "mode": "full"},
    )  # fmt: skip
    taken = step_seconds(model, train, given.steps)
    model.eval()
    batches = []

    @torch.no_grad()
    def rank():
        batches.clear()
        for k, (batch, seen, _, _) in enumerate(test):
            scores = model.full_sort_predict(batch).view(len(batch), -1)
            scores[:, 0] = -torch.inf
            if seen is not None:
                scores[seen] = -torch.inf
            scores.topk(10)
            batches.append(len(batch))
            if k == 5:
                break

    ranking = seconds(rank, 5)
    share = sum(batches) / len(test._dataset)
    emit(
        "RecBole",
        {"training, an epoch": quarters(taken, len(train)), "full ranking of all users": [t / share for t in ranking]},
        ("recbole", "torch", "numpy"),
        note=f"{given.steps} of {len(train):,} steps of 256 prefixes and {share:.0%} of users, scaled; its epoch has"
        f" every prefix as a target, about {256 * len(train):,}, the others' the latest 200 of each user; no quality:"
        " an epoch takes too long",
    )


if __name__ == "__main__":
    main()
