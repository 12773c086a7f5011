"""The popularity baseline, and the measures of lists that every recommender's evaluation gives."""

import json
import math
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from msmrec.artifacts import InputError
from msmrec.columns import TEST
from msmrec.data.prepare import Dataset
from msmrec.finished_run import evaluate

WORLD = {"num_users": 120, "num_items": 60, "mean_interactions": 14, "num_modalities": 3, "num_aspects": 4}


@pytest.fixture
def args(tiny_root: Path, cache: Path, tmp_path: Path) -> list[str]:
    source = json.dumps({"class_path": "Simulated", "init_args": WORLD})
    args = ["--config", "popularity_ml1m.yaml", "--data.source", source, "--trainer.logger=false"]
    args += ["--trainer.enable_progress_bar=false", "--data.root", str(tiny_root), "--data.cache", str(cache)]
    return [*args, "--run_dir", str(tmp_path / "run")]


def lists_by_hand(tiny: Dataset) -> dict[int, list[int]]:
    """The ten most rated items that a user has not seen before the test part."""
    count = tiny.items["count"].to_numpy()
    lists = {}
    for user in range(1, tiny.num_users + 1):
        seen = set(tiny.item_id[tiny.offsets[user] : tiny.ends[TEST - 1][user]].tolist())
        order = [i for i in np.argsort(-count, kind="stable") + 1 if i not in seen]
        lists[user] = order[:10]
    return lists


def test_popularity_from_raw_data_without_a_checkpoint(
    args: list[str], tiny: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    metrics = evaluate(args)
    assert "test/hit_rate@10" in capsys.readouterr().out
    record = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert {f"test/{k}": v for k, v in record["test"].items()} == metrics
    count, tier = tiny.items["count"].to_numpy(), tiny.items["tier"].to_list()
    novelty, shares = [], []
    for items in lists_by_hand(tiny).values():
        novelty.append(np.mean([-math.log2(max(count[i - 1], 1) / count.sum()) for i in items]))
        shares.append(np.mean([tier[i - 1] == "head" for i in items]))
    assert metrics["test/novelty@10"] == pytest.approx(np.mean(novelty), abs=1e-5)
    # items of equal counts may stand for each other, which moves tiers only at their border
    assert metrics["test/head_share@10"] == pytest.approx(np.mean(shares), abs=0.02)
    assert 0 < metrics["test/coverage@10"] < 1 and metrics["test/gini@10"] > 0.5
    assert not {"diversity@10", "calibration@10"} & set(record["test"])  # the tiny world has no genres
    users = pl.read_parquet(tmp_path / "run" / "per_user.parquet")
    for name in ("novelty@10", "tail_fraction@10"):
        assert users[name].mean() == pytest.approx(record["test"][name], abs=1e-6)
    assert evaluate(args) == metrics  # from the run that is there now


def test_real_genres(real_data: Path, cache: Path, tmp_path: Path) -> None:
    args = ["--config", "popularity_ml100k.yaml", "--data.root", str(real_data), "--data.cache", str(cache)]
    quiet = ["--trainer.logger=false", "--trainer.enable_progress_bar=false", "--run_dir", str(tmp_path)]
    metrics = evaluate([*args, *quiet])
    users = pl.read_parquet(tmp_path / "per_user.parquet")
    for name in ("novelty@10", "diversity@10", "tail_fraction@10", "calibration@10"):
        assert users[name].mean() == pytest.approx(metrics[f"test/{name}"], abs=1e-6)
    # the most popular films: all of the head, novel to nobody, alike for everybody
    assert metrics["test/head_share@10"] == 1 and metrics["test/tail_fraction@10"] == 0
    assert metrics["test/coverage@10"] < 0.1 < metrics["test/calibration@10"]
    assert 0.5 < metrics["test/diversity@10"] < 0.9


def test_hidden_items_are_cold_and_popularity_finds_none_of_them(args: list[str], tmp_path: Path) -> None:
    metrics = evaluate([*args, "--data.protocol.hidden_items=0.2"])
    assert metrics["test/cold_users"] > 5
    assert metrics["test/cold_recall@10"] == 0 and metrics["test/cold_list_recall@10"] == 0  # all counts are 0: ties
    users = pl.read_parquet(tmp_path / "run" / "per_user.parquet")
    assert users["cold_recall@10"].count() == metrics["test/cold_users"]  # null for users without a cold target
    assert users["cold_recall@10"].null_count() > 0


def test_what_is_trained_needs_a_checkpoint(args: list[str]) -> None:
    with pytest.raises(InputError, match="SASRec is trained: give its --ckpt_path"):
        evaluate(["--config", "sasrec_ml100k.yaml", *args[2:]])
