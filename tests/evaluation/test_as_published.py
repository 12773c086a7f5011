"""What RALLRec's published scoring does to a result, on samples counted by hand."""

import json
from pathlib import Path

import polars as pl
import pytest
import torch

from msmrec.artifacts import InputError
from msmrec.columns import ITEM_ID, SPLIT, TEST, TIMESTAMP, USER_ID
from msmrec.data.prepare import Dataset
from msmrec.evaluation.as_published import as_published, table


def predictions_of(dataset: Dataset) -> pl.DataFrame:
    rows = pl.read_parquet(dataset.folder / "interactions.parquet").filter(pl.col(SPLIT) == TEST)
    # The later a sample, the worse its probability: the first are right, the last are wrong.
    order = rows.sort(TIMESTAMP, maintain_order=True).with_row_index("place")
    late = pl.col("place") >= len(rows) // 2
    label = (pl.col("place") % 2).cast(pl.Int32)
    high = (label == 1) != late
    prob = pl.when(high).then(0.9).otherwise(0.1)
    return order.select(USER_ID, ITEM_ID, label=label, prob=prob).sample(fraction=1, shuffle=True, seed=1)


def test_first_rows_and_the_softmax_twice(tiny_clicks: Dataset) -> None:
    predictions = predictions_of(tiny_clicks)
    half = len(predictions) // 2
    result = as_published(predictions, tiny_clicks, first=half)
    whole, first, twice, both = result.values()
    assert first["auc"] == 1 and whole["auc"] == pytest.approx(0.5, abs=0.05)
    assert twice["auc"] == pytest.approx(whole["auc"])  # the order stays
    prob = torch.softmax(torch.tensor([0.9, 0.1]), 0)[0]
    assert both["log_loss"] == pytest.approx(-prob.log().item(), abs=1e-6)  # all right, with .69 instead of .9


def test_predictions_of_another_dataset_are_refused(tiny_clicks: Dataset) -> None:
    other = predictions_of(tiny_clicks).with_columns(pl.col(ITEM_ID) + 1)
    with pytest.raises(InputError, match="another dataset"):
        as_published(other, tiny_clicks)


def test_a_run_without_predictions_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("data: {}")
    record: dict[str, object] = {key: {} for key in ("config", "dataset", "protocol", "test", "train")}
    (tmp_path / "metrics.json").write_text(json.dumps(record))
    with pytest.raises(InputError, match="only runs of click models"):
        table(tmp_path)
    with pytest.raises(InputError, match="no such folder"):
        table(tmp_path / "nowhere")
