"""The whole recommender on the tiny world: metrics against plain loops, the cache, re-ranking, mistakes."""

import json
import math
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
import yaml
from tests.tiny_configs import TINY_DATA, YearFeatures

from msmrec.artifacts import InputError
from msmrec.cli import train
from msmrec.data.prepare import Dataset
from msmrec.finished_run import evaluate
from msmrec.metrics.beyond_accuracy import Catalogue
from msmrec.recommend.list_metrics import Targets, list_metrics
from msmrec.recommend.rerank import Reranked, Reranker
from msmrec.recommend.two_stage import TwoStage, Variant

PROTOCOL = {
    "min_user_count": 0, "min_item_count": 0, "split": "user_ratio", "ratios": [0.7, 0.0, 0.3], "min_target_rating": 3,
}  # fmt: skip


class Backwards(Reranker):
    """The candidates from the last to the first."""

    fingerprint = "backwards"
    failed = 0
    calls = 0

    def rerank(
        self, dataset: Dataset, users: np.ndarray, candidates: np.ndarray, scores: np.ndarray, cache: Path
    ) -> Reranked:
        Backwards.calls += 1
        width = (candidates > 0).sum(1)
        items = np.zeros_like(candidates)
        for row, n in enumerate(width):
            items[row, :n] = candidates[row, :n][::-1]
        counts = Counter({"turned": len(users), "fell back: server": Backwards.failed})
        return Reranked(items, +counts, [{int(row[0]): "it was last"} for row in items])


@pytest.fixture
def args(tiny_root: Path, cache: Path, tmp_path: Path) -> list[str]:
    model: dict[str, Any] = {
        "class_path": "TwoStage",
        "init_args": {
            "features": {"year": {"class_path": "tests.tiny_configs.YearFeatures"}},
            "reranker": {"class_path": "tests.recommend.test_two_stage.Backwards"},
            "variants": {
                "average": {"features": ["year"], "user": "average", "candidates": 12},
                "turned": {"features": ["year"], "user": "average", "candidates": 12, "rerank": True},
                "random": {"features": ["year"], "user": "random"},
            },
        },
    }
    config = {"model": model, "data": {"protocol": PROTOCOL}, "trainer": {"max_epochs": 0}}
    (tmp_path / "two.yaml").write_text(yaml.safe_dump(config))
    args = ["--config", str(tmp_path / "two.yaml"), *TINY_DATA, "--data.root", str(tiny_root)]
    return [*args, "--data.cache", str(cache), "--run_dir", str(tmp_path / "run")]


def test_a_table_from_raw_data(
    args: list[str], cache: Path, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(YearFeatures, "caveat", "a year says little")
    metrics = evaluate(args)
    printed = capsys.readouterr().out
    assert "| average | 12 |" in printed and "| turned | 12 |" in printed and "recall@N" in printed
    assert "\nyear: a year says little\n" in printed
    run = tmp_path / "run"
    record = json.loads((run / "metrics.json").read_text())
    assert {f"test/{k}": v for k, v in record["test"].items()} == metrics
    assert record["protocol"]["users"]["turned"] == {"turned": len(pl.read_parquet(run / "per_user.parquet")) // 3}
    dataset = Dataset(cache / "datasets" / f"{record['dataset']['name']}-{record['dataset']['fingerprint']}")
    lists = pl.read_parquet(run / "lists.parquet")
    users = pl.read_parquet(run / "per_user.parquet")
    for variant in ("average", "turned", "random"):
        recall, ndcg, whole, tested = [], [], [], []
        for user in range(1, dataset.num_users + 1):
            targets = set(dataset.item_id[dataset.ends[1][user] : dataset.ends[2][user]].tolist())
            if not targets:
                continue
            seen = set(dataset.item_id[dataset.offsets[user] : dataset.ends[1][user]].tolist())
            mine = lists.filter(user_id=user, variant=variant).sort("place")["item_id"].to_list()
            assert len(mine) == len(set(mine)) and not seen & set(mine)
            hits = [item in targets for item in mine[:10]]
            best = sum(1 / math.log2(place + 2) for place in range(min(len(targets), 10)))
            recall.append(sum(hits) / len(targets))
            ndcg.append(sum(hit / math.log2(place + 2) for place, hit in enumerate(hits)) / best)
            whole.append(len(targets & set(mine)) / len(targets))
            tested.append(user)
        assert metrics[f"test/{variant}/recall@10"] == pytest.approx(np.mean(recall), abs=1e-6)
        assert metrics[f"test/{variant}/ndcg@10"] == pytest.approx(np.mean(ndcg), abs=1e-6)
        size = 50 if variant == "random" else 12
        assert metrics[f"test/{variant}/retrieval_recall@{size}"] == pytest.approx(np.mean(whole), abs=1e-6)
        rows = users.filter(variant=variant).sort("user_id")
        assert rows["user_id"].to_list() == tested
        assert rows["recall@10"].to_list() == pytest.approx(recall, abs=1e-6)
    turned = lists.filter(variant="turned", place=1)
    assert turned["reason"].to_list() == ["it was last"] * len(turned)
    assert pl.read_csv(run / "per_user.csv").shape == users.shape
    assert record["protocol"]["users_without_targets"] == dataset.num_users - len(tested)


def test_candidates_are_kept_and_made_again_when_what_they_rest_on_changes(
    args: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = ["--data.cache", str(tmp_path / "cache")]
    metrics = evaluate([*args, *cache])
    assert evaluate([*args, *cache]) == metrics  # the run itself, again
    made: list[str] = []
    monkeypatch.setattr("msmrec.recommend.two_stage.nearest_unseen", lambda *_: made.append("again"))
    elsewhere = ["--run_dir", str(tmp_path / "other")]
    assert evaluate([*args, *cache, *elsewhere]) == metrics and not made
    with pytest.raises(AttributeError):  # none of the kept ones fit
        evaluate([*args, *cache, "--run_dir", str(tmp_path / "third"), "--model.init_args.liked=3"])
    assert made
    with pytest.raises(InputError, match="holds a run with another model"):
        evaluate([*args, *cache, "--model.init_args.liked=3"])


def test_lists_are_kept_unless_some_fell_back(args: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    args = [*args, "--data.cache", str(tmp_path / "cache")]
    monkeypatch.setattr(Backwards, "failed", 3)
    monkeypatch.setattr(Backwards, "calls", 0)
    first = evaluate([*args, "--run_dir", str(tmp_path / "1")])
    asked = Backwards.calls
    assert asked and not (tmp_path / "cache" / "lists").exists()
    monkeypatch.setattr(Backwards, "failed", 0)
    assert evaluate([*args, "--run_dir", str(tmp_path / "2")]) == first
    assert Backwards.calls == asked + 1  # asked again, and kept: a run is evaluated twice
    assert evaluate([*args, "--run_dir", str(tmp_path / "3")]) == first
    assert Backwards.calls == asked + 1
    lists = [pl.read_parquet(tmp_path / name / "lists.parquet") for name in "23"]
    assert lists[0].equals(lists[1]) and lists[0]["reason"].drop_nulls().len() > 50


def test_hidden_items_are_found_by_their_vectors(args: list[str]) -> None:
    metrics = evaluate([*args, "--data.protocol.hidden_items=0.2"])
    assert metrics["test/average/cold_list_recall@10"] > 0 and metrics["test/average/cold_users"] > 5
    assert 0 <= metrics["test/average/cold_recall@10"] <= metrics["test/average/cold_list_recall@10"]


def test_mistakes_are_one_line(args: list[str]) -> None:
    year = {"year": YearFeatures()}
    cases = {
        "no text among year": {"a": Variant(["text"])},
        "several and a fusion": {"a": Variant(["year", "year"])},
        "give one of the features": {"a": Variant(["year"], fusion="pca")},
        "give at least 10": {"a": Variant(["year"], candidates=9)},
        "no model.reranker": {"a": Variant(["year"], rerank=True)},
        "without a slash": {"a/b": Variant(["year"])},
        "variants is empty": {},
    }
    for words, variants in cases.items():
        with pytest.raises(InputError, match=words):
            TwoStage(year, variants)
    with pytest.raises(InputError, match=r"variants\.average"):  # from the command line too
        train([*args, "--model.init_args.variants.average.candidates=5"])


def test_a_cutoff_beyond_the_catalogue_finds_nothing_that_is_not_there() -> None:
    users, target = np.array([1]), 3
    targets = Targets(users, users * 9 + target, torch.tensor([1]), torch.tensor([0]))
    catalogue = Catalogue(torch.ones(9), torch.zeros(9, dtype=torch.long), torch.ones(9, 1))
    lists = np.array([[1, 2, 4] + [0] * 47])
    of_users, _ = list_metrics(lists, lists, targets, catalogue, torch.ones(1, 1), (5, 10, 20))
    assert {float(of_users[f"{name}@{k}"]) for name in ("hit_rate", "recall", "ndcg", "mrr") for k in (5, 10, 20)} == {
        0
    }
    found, _ = list_metrics(np.where(lists == 4, target, lists), lists, targets, catalogue, torch.ones(1, 1), (5, 10))
    assert found["mrr@10"] == found["mrr@5"] == pytest.approx(1 / 3)
