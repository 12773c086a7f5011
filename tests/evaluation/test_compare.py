"""Tables over runs: hand-worked numbers, what is refused, and what is warned of."""

import json
import math
import re
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import yaml
from sklearn.metrics import log_loss, roc_auc_score
from tests.evaluation.written_runs import PROTOCOL, random_hits, small, write_config, write_run

from msmrec.artifacts import InputError
from msmrec.evaluation.user_results import UserResults
from msmrec.run_folder import find_runs
from msmrec.verbs import compare as compare_verb


def test_mean_deviation_and_difference_by_hand(tmp_path: Path) -> None:
    write_run(tmp_path / "a" / "seed=0", [1, 0, 1, 0])
    write_run(tmp_path / "a" / "seed=1", [1, 0, 0, 0])
    write_run(tmp_path / "b" / "seed=0", [1, 1, 1, 0], "b_model")
    table = small(tmp_path, baseline="a_model")
    assert table.metrics == ["hit_rate@10", "ndcg@10"]  # the model's headline, of what there is
    a, b = table.rows
    assert (a.name, a.seeds, b.name, b.seeds) == ("a_model", 2, "b_model", 1)
    first, second = a.cells[0], b.cells[0]
    assert first and second
    assert first.mean == pytest.approx(0.375) and first.sd == pytest.approx(0.25 / np.sqrt(2))
    assert second.mean == pytest.approx(0.75) and second.sd is None
    assert second.difference == pytest.approx(0.375) and first.difference is None and second.best


def test_intervals_are_over_users_with_seeds_averaged_first(tmp_path: Path) -> None:
    """Two seeds that hit complementary users average to one half for everyone: no spread over users is left."""
    hits = random_hits(0.5, 0)
    write_run(tmp_path / "a" / "seed=0", hits)
    write_run(tmp_path / "a" / "seed=1", 1 - hits)
    (cell, _), (single, _) = small(tmp_path).rows[0].cells, small(tmp_path / "a" / "seed=0").rows[0].cells
    assert cell and single and cell.interval == pytest.approx((0.5, 0.5))
    error = hits.std() / np.sqrt(len(hits))
    assert single.interval == pytest.approx((hits.mean() - 1.96 * error, hits.mean() + 1.96 * error), abs=0.5 * error)


def test_tests_are_paired_and_corrected(tmp_path: Path) -> None:
    hits = random_hits(0.3, 0)
    better = np.where(np.arange(200) % 10 == 0, 1.0, hits)  # never worse: a paired test sees it, an unpaired one not
    write_run(tmp_path / "base", hits, "base")
    write_run(tmp_path / "better", better, "better")
    write_run(tmp_path / "same", hits, "same")
    table = small(tmp_path, baseline="base", metrics=["hit_rate@10"])
    cells = {row.name: row.cells[0] for row in table.rows}
    base, above, same = cells["base"], cells["better"], cells["same"]
    assert base and above and same and base.interval and above.interval
    assert base.interval[1] > above.interval[0]  # the intervals overlap
    assert above.p == pytest.approx(2 * 2 / 201) and same.p == 1 and base.p is None
    assert above.best and not same.near_best and not base.near_best  # told apart from the best, and so not marked
    noisy = write_run(tmp_path / "noisy", random_hits(0.3, 1), "noisy")
    near = small(tmp_path / "base", noisy, metrics=["hit_rate@10"]).rows
    assert [bool(row.cells[0] and (row.cells[0].best or row.cells[0].near_best)) for row in near] == [True, True]


def test_a_metric_that_few_users_have_gets_no_interval_of_nothing(tmp_path: Path) -> None:
    """Of 40 users one has a cold target: a third of the resamples draw none, where the metric is 0 / 0."""
    runs = []
    for name, value in (("a", 1.0), ("b", 0.0)):
        run = write_run(tmp_path / name, random_hits(0.5, 0, 40), name)
        table = pl.read_parquet(run / "per_user.parquet")
        cold = pl.Series("cold_recall@10", [value, *[None] * 39], dtype=pl.Float64)
        table.with_columns(cold).write_parquet(run / "per_user.parquet")
        record = json.loads((run / "metrics.json").read_text())
        record["test"]["cold_recall@10"] = value
        (run / "metrics.json").write_text(json.dumps(record))
        runs.append(run)
    rows = small(*runs, metrics=["cold_recall@10", "hit_rate@10"], baseline="a").rows
    cold, hits = rows[1].cells
    assert cold and cold.mean == 0 and cold.interval is None and cold.p is None
    assert hits and hits.interval is not None and hits.p is not None


def test_seeds_that_leave_out_other_users_are_averaged_as_the_table_does(tmp_path: Path) -> None:
    """The mean of the seeds' means, not of all their users: the first is defined for 10 users, the second for 190."""
    hits = random_hits(0.5, 0)
    for seed, defined, value in ((0, 10, 1.0), (1, 190, 0.0)):
        run = write_run(tmp_path / f"seed={seed}", hits)
        there = pl.Series("diversity@10", [*[value] * defined, *[None] * (200 - defined)], dtype=pl.Float64)
        pl.read_parquet(run / "per_user.parquet").with_columns(there).write_parquet(run / "per_user.parquet")
        record = json.loads((run / "metrics.json").read_text())
        record["test"]["diversity@10"] = value
        (run / "metrics.json").write_text(json.dumps(record))
    (cell,) = small(tmp_path, metrics=["diversity@10"]).rows[0].cells
    assert cell and cell.mean == 0.5 and cell.interval == pytest.approx((0.5, 0.5))


def test_what_is_undefined_is_neither_best_nor_compared_with(tmp_path: Path) -> None:
    hits = {"a": random_hits(0.3, 0), "b": random_hits(0.3, 0), "c": random_hits(0.7, 1)}
    for name, of in hits.items():
        run = write_run(tmp_path / name, of, name)
        if name == "a":
            pl.read_parquet(run / "per_user.parquet").with_columns(
                pl.lit(None, pl.Float64).alias("hit_rate@10")
            ).write_parquet(run / "per_user.parquet")
            record = json.loads((run / "metrics.json").read_text())
            record["test"]["hit_rate@10"] = math.nan
            (run / "metrics.json").write_text(json.dumps(record))
    undefined, low, high = (row.cells[0] for row in small(tmp_path, metrics=["hit_rate@10"]).rows)
    assert undefined and math.isnan(undefined.mean) and not undefined.best and undefined.interval is None
    assert low and high and high.best and not low.best and not low.near_best
    record["test"]["hit_rate@10"] = 0.3  # what its results by user do not say
    (tmp_path / "a" / "metrics.json").write_text(json.dumps(record))
    with pytest.raises(InputError, match=r"its per-user results give hit_rate@10 nan, its metrics.json 0\.3000"):
        small(tmp_path, metrics=["hit_rate@10"])


def test_what_is_better_smaller_and_what_is_neither(tmp_path: Path) -> None:
    tests = {"a": {"gini@10": 0.9, "head_share@10": 0.3}, "b": {"gini@10": 0.5, "head_share@10": 0.6}}
    runs = [write_run(tmp_path / name, [1, 0], name, {"test": test}) for name, test in tests.items()]
    best = [
        [bool(cell and cell.best) for cell in row.cells]
        for row in small(*runs, metrics=["gini@10", "head_share@10"]).rows
    ]
    assert best == [[False, False], [True, False]]


def test_what_differs_in_the_test_is_refused(tmp_path: Path) -> None:
    first = write_run(tmp_path / "a", [1, 0], "a")
    dataset = {"name": "tiny", "fingerprint": "f2"}
    other = write_run(tmp_path / "b", [1, 0], "b", {"dataset": dataset})
    with pytest.raises(InputError, match=r"a and .*b cannot be in one table: dataset fingerprint is 'f1'"):
        small(first, other)
    split = write_run(tmp_path / "c", [1, 0], "c", {"dataset": dataset}, {"split": "global_time"})
    with pytest.raises(InputError, match="protocol split is 'leave_one_out' in the first, 'global_time'"):
        small(first, split)
    sampled = write_run(tmp_path / "d", [1, 0], "d", protocol={"evaluated_on": "2,000 prompts"})
    with pytest.raises(InputError, match="protocol evaluated_on is None"):
        small(first, sampled)
    fewer = write_run(tmp_path / "e", [1], "e")
    with pytest.raises(InputError, match="differ in user_id"):
        small(first, fewer)
    stale = write_run(tmp_path / "f", [1, 0], "f")
    pl.DataFrame({"user_id": [1, 2], "hit_rate@10": [0.0, 0.0]}).write_parquet(stale / "per_user.parquet")
    with pytest.raises(InputError, match=r"hit_rate@10 0.0000, its metrics.json 0.5000"):
        small(stale)


def test_what_says_nothing_of_the_test_is_no_difference(tmp_path: Path) -> None:
    protocol = {key: value for key, value in PROTOCOL.items() if key != "min_user_count"}  # in the fingerprint
    write_run(tmp_path / "a", [1, 0], "a", {"protocol": protocol})
    newer = {"train_samples": 100, "retrieval": {"hit": 0.5}, "users_without_history": {"val": 0, "test": 0}}
    write_run(tmp_path / "b", [1, 0], "b", protocol=newer)
    assert [row.name for row in small(tmp_path).rows] == ["a", "b"]


def test_a_run_that_is_not_finished_is_a_gap(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_run(tmp_path / "a" / "seed=0", [1, 0])
    write_config(tmp_path / "a" / "seed=1", 1)
    compare_verb.main([str(tmp_path), "--resamples", "100"])
    out, err = capsys.readouterr()
    assert "| `a/seed=1` (unfinished: no metrics.json, no epoch done) | - | - | - |" in out
    assert re.fullmatch(r"msmrec: warning: .*seed=1: unfinished.*\n", err)
    compare_verb.main([str(tmp_path / "a" / "seed=1")])  # nothing but gaps is a table too
    assert "`a/seed=1`" in capsys.readouterr().out


def test_runs_are_found_in_order_and_a_loggers_files_are_none(tmp_path: Path) -> None:
    for name in ("b/seed=10", "b/seed=2", "a", ".hidden"):
        write_config(write_run(tmp_path / name, [1, 0]) / "wandb" / "files")
    assert [run.name for run in find_runs([tmp_path])] == ["a", "b/seed=2", "b/seed=10"]


def test_warnings(tmp_path: Path) -> None:
    write_run(tmp_path / "a" / "seed=0", [1, 0])
    write_run(tmp_path / "a" / "seed=1", [1, 0], record={"git_commit": "def"}, trainer__max_epochs=5)
    write_run(tmp_path / "b" / "seed=0", [1, 0], "b", trainer__limit_train_batches=2)
    write_run(tmp_path / "copy" / "seed=0", [0, 0])
    write_run(tmp_path / "old" / "seed=2", [1, 0], model__init_args={"k": 8})
    table = small(tmp_path / "a" / "seed=0", tmp_path)
    given, copy, old, commits, seeds, cut_a, cut_b = table.warnings
    assert "seed=0 is given twice" in given
    assert re.search(r"copy/seed=0 is left out: .*a/seed=0 has the same config and seed but other results", copy)
    assert "does not record model.init_args.dropout" in old
    assert "abc (3), def (1)" in commits and "a_model 3, b 1" in seeds
    assert cut_a == "cut short: a/seed=1 (trainer.max_epochs 5 instead of 20)"
    assert cut_b == "cut short: b/seed=0 (trainer.limit_train_batches 2)"
    assert [row.seeds for row in table.rows] == [3, 1]


def test_epochs_are_held_against_the_configs_own_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    configs = tmp_path / "configs"
    (configs / "text").mkdir(parents=True)
    for name, epochs in (("base", 100), ("a_model", 30), ("text/b", None)):
        content = {"trainer": {"max_epochs": epochs}} if epochs else {"model": {"x": 1}}
        (configs / f"{name}.yaml").write_text(yaml.safe_dump(content))
    write_run(tmp_path / "runs" / "a", [1, 0], "a_model+b")
    write_run(tmp_path / "runs" / "c", [1, 0], "from_elsewhere")
    monkeypatch.setattr("msmrec.evaluation.comparable_runs.CONFIGS", configs)
    (warning,) = small(tmp_path / "runs").warnings
    assert warning == "cut short: a (trainer.max_epochs 20 instead of 30)"


def test_runs_of_one_config_that_differ_are_rows_of_their_own(tmp_path: Path) -> None:
    for k in (16, 8):
        for dropout in (0.1, 0.2):
            write_run(tmp_path / f"{k}-{dropout}", [1, 0], model__init_args={"dropout": dropout, "k": k})
    names = [row.name for row in small(tmp_path).rows]
    assert names[0] == "a_model (dropout=0.1, k=16)" and len(names) == 4
    rows = small(tmp_path, x="model.init_args.k").rows
    assert [(row.line, row.x) for row in rows] == [
        ("a_model (dropout=0.1)", 8), ("a_model (dropout=0.1)", 16),
        ("a_model (dropout=0.2)", 8), ("a_model (dropout=0.2)", 16),
    ]  # fmt: skip
    assert rows[0].name == "a_model (dropout=0.1, k=8)"
    with pytest.raises(InputError, match=r"model.init_args.nothing is None, no number"):
        small(tmp_path, x="model.init_args.nothing")


def test_what_the_user_got_wrong_is_one_line(tmp_path: Path) -> None:
    run = write_run(tmp_path / "a", [1, 0])
    (tmp_path / "empty").mkdir()
    for options, message in (
        ({"metrics": ["nonsense"]}, "no run has the metric nonsense; metrics.json has hit_rate@10"),
        ({"baseline": "b"}, "--baseline b is no row of the table; rows: a_model"),
    ):
        with pytest.raises(InputError, match=message):
            small(run, **options)
    with pytest.raises(InputError, match="no such folder"):
        small(tmp_path / "nowhere")
    with pytest.raises(InputError, match="no run in it"):
        small(tmp_path / "empty")
    (run / "per_user.parquet").write_bytes((run / "per_user.parquet").read_bytes()[:-9])
    with pytest.raises(InputError, match=r"a/per_user\.parquet: gone or broken \(parquet: File out of specification"):
        small(run)
    for content in ("{", "[]", '{"test": [1]}'):
        (run / "metrics.json").write_text(content)
        with pytest.raises(InputError, match=r"a/metrics\.json is gone or broken"):
            small(run)


def test_click_models_are_resampled_from_their_predictions(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    user, label = rng.permutation(np.repeat(np.arange(3, 43), 20)), rng.integers(0, 2, 800)
    for name, skill in (("bad", 0.2), ("good", 1.5)):
        prob = (1 / (1 + np.exp(-rng.normal(size=800) - skill * (label - 0.5)))).astype(np.float32)
        test = {"auc": roc_auc_score(label, prob), "log_loss": log_loss(label, prob), "ece": 0.1}
        run = write_run(tmp_path / name, [1, 0], name, {"test": test}, model__class_path="msmrec.models.din.DIN")
        shuffled = rng.permutation(800)  # models write samples in an order of their own
        samples = pl.DataFrame({"user_id": user, "item_id": user, "label": label, "prob": prob})[shuffled]
        samples.write_parquet(run / "predictions.parquet")
        one = samples.group_by("user_id").agg(samples=pl.len().cast(pl.Int64), clicks=pl.col("label").sum(), auc=0.5)
        one.write_parquet(run / "per_user.parquet")
    results = UserResults(find_runs([tmp_path / "good"])[0])
    (loss_sums, sizes), pairs = results.sums("log_loss"), results.pairs()
    for place, mine in ((7, user == 10), (0, user == 3)):  # each sample is its user's
        assert sizes[place] == 20 and loss_sums[place] / 20 == pytest.approx(log_loss(label[mine], prob[mine]))
        own = pairs[place, place] / (label[mine].sum() * (1 - label[mine]).sum())
        assert own == pytest.approx(roc_auc_score(label[mine], prob[mine]))
    table = small(tmp_path, baseline="bad")
    assert table.metrics == ["auc", "log_loss", "ece"]
    auc, loss, ece = table.rows[1].cells
    assert auc and loss and ece and auc.interval and loss.interval and auc.p and loss.p
    assert auc.best and loss.best and auc.p < 0.05 and loss.p < 0.05
    assert auc.interval[0] < auc.mean < auc.interval[1] and ece.interval is None and ece.p is None
    assert any(note.startswith("ece: seeds only") for note in table.notes)
    assert any(note.startswith("auc, log_loss: over all samples") for note in table.notes)
    (tmp_path / "bad" / "predictions.parquet").unlink()
    assert any(note.startswith("auc of bad: seeds only") for note in small(tmp_path).notes)


def test_the_verb_writes_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_run(tmp_path / "a", [1, 0])
    out = tmp_path / "table.csv"
    compare_verb.main([str(tmp_path / "a"), "--metrics", "hit_rate@10", "--format", "csv", "--out", str(out)])
    assert capsys.readouterr().out == "" and out.read_text().startswith("config,seeds,hit_rate@10,")
    with pytest.raises(InputError, match="at least 100"):
        compare_verb.main([str(tmp_path / "a"), "--resamples", "3"])
