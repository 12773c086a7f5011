"""A click model's test result as RALLRec's published code would have reported it, beside the whole one.

Its inference takes the first 10,000 rows of a test part in time order (of 97,002 on MovieLens 1M), and the softmax
twice: the probabilities of Yes and No go through another softmax, which squeezes them into [.269, .731]. Neither is
done anywhere else here. The third of its defects, collaborative vectors that know the test period, is in training:
`LightGCN.leak`.
"""

import math
from pathlib import Path

import polars as pl
import torch
from torch import Tensor

from msmrec.artifacts import InputError
from msmrec.columns import ITEM_ID, SPLIT, TEST, TIMESTAMP, USER_ID
from msmrec.data.prepare import Dataset, read_parquet
from msmrec.markdown import markdown
from msmrec.metrics.ctr import ctr_metrics, user_auc
from msmrec.run_folder import dataset_of, read_finished

METRICS = ("auc", "log_loss", "accuracy", "user_auc", "ece")


def as_published(predictions: pl.DataFrame, dataset: Dataset, first: int = 10_000) -> dict[str, dict[str, float]]:
    """METRICS under each name of a way to score.

    Args:
        predictions: user_id, item_id, label, prob; a row a test sample.
        first: rows that the published code scores.
    """
    rows = read_parquet(dataset.folder / "interactions.parquet", columns=[USER_ID, ITEM_ID, TIMESTAMP, SPLIT])
    times = rows.filter(pl.col(SPLIT) == TEST).select(USER_ID, ITEM_ID, TIMESTAMP)
    in_time = predictions.join(times, on=[USER_ID, ITEM_ID], how="left", validate="1:1").sort(
        TIMESTAMP, maintain_order=True
    )
    if missing := in_time[TIMESTAMP].null_count():
        raise InputError(
            f"{missing:,} of the run's predictions are of no test row of {dataset.folder}: another dataset"
        )
    user, label, prob = (in_time[name].to_torch() for name in (USER_ID, "label", "prob"))

    def metrics(prob: Tensor, part: slice) -> dict[str, float]:
        user_part, label_part = user[part], label[part].float()
        per_user = user_auc(prob[part], label_part, user_part)
        values = ctr_metrics(prob[part], label_part, per_user, torch.tensor(0.5))
        return {name: values.get(name, math.nan) for name in METRICS}

    whole, head = slice(None), slice(first)
    twice = torch.sigmoid(2 * prob - 1)  # softmax over (p, 1 - p)
    return {
        f"all {len(prob):,} rows": metrics(prob, whole),
        f"the first {min(first, len(prob)):,}": metrics(prob, head),
        "all rows, softmax twice": metrics(twice, whole),
        "both, as published": metrics(twice, head),
    }


def table(run: Path) -> str:
    """`as_published` of a finished run, in Markdown.

    Raises:
        InputError: the run is not finished, or predicts no clicks.
    """
    read_finished(run)
    path = run / "predictions.parquet"
    if not path.is_file():
        raise InputError(f"{run}: no predictions.parquet; only runs of click models have one")
    result = as_published(read_parquet(path, [USER_ID, ITEM_ID, "label", "prob"]), dataset_of(run))
    rows = [[name, *(f"{values[metric]:.4f}" for metric in METRICS)] for name, values in result.items()]
    return markdown(["scored", *METRICS], rows)
