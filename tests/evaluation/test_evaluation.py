"""Slices against hand-worked tables, and the verbs that print them."""

import json
from pathlib import Path
from unittest.mock import MagicMock

import polars as pl
import pytest
import yaml

from msmrec.artifacts import InputError
from msmrec.data.prepare import Dataset
from msmrec.evaluation.slices import compare_slices, slices
from msmrec.verbs import describe, embed, prepare
from msmrec.verbs.demo import main as demo


def write_run(folder: Path, tiny: Dataset, config: str, hit: pl.Expr, seed: int = 0, **model: float) -> Path:
    """A finished run on the tiny world, with made-up results."""
    folder.mkdir(parents=True)
    users = tiny.users.select("user_id").with_columns(hit.cast(pl.Float32).alias("hit_rate@10"))
    users.with_columns((pl.col("hit_rate@10") / 2).alias("ndcg@10")).write_parquet(folder / "per_user.parquet")
    record = {"config": config, "dataset": tiny.info, "seed": seed, "protocol": {}, "test": {}, "train": {}}
    (folder / "metrics.json").write_text(json.dumps(record))
    settings = {"data": {"cache": str(tiny.folder.parents[1])}, "model": {"init_args": model}}
    (folder / "config.yaml").write_text(yaml.safe_dump(settings))
    return folder


def test_slices_weigh_every_user_once(tiny: Dataset, tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", tiny, "a", pl.col("user_id") % 2 == 0)
    table = slices(pl.read_parquet(run / "per_user.parquet"), tiny)
    everyone = table.row(0, named=True)
    assert everyone["slice"] == "all" and everyone["users"] == tiny.num_users
    assert everyone["hit_rate@10"] == pytest.approx(0.5) and everyone["ndcg@10"] == pytest.approx(0.25)
    for kind in ("target: ", "user: "):
        part = table.filter(pl.col("slice").str.starts_with(kind))
        assert part["users"].sum() == tiny.num_users
        assert (part["users"] * part["hit_rate@10"]).sum() == pytest.approx(tiny.num_users / 2)


def test_a_user_whose_history_is_all_validation_is_in_the_slices(tiny_clicks: Dataset) -> None:
    rows = pl.read_parquet(tiny_clicks.folder / "interactions.parquet", columns=["user_id", "split"])
    tested = rows.filter(pl.col("split") == 2)["user_id"].unique()
    late = set(tested) - set(rows.filter(pl.col("split") == 0)["user_id"])
    assert late
    users = pl.DataFrame({"user_id": tested, "hit_rate@10": 1.0, "ndcg@10": 1.0})
    assert slices(users, tiny_clicks).row(0, named=True)["users"] == len(tested)


def test_slices_are_right_for_a_known_pattern(tiny: Dataset, tmp_path: Path) -> None:
    """Hits exactly where the test item is of the head: 1 in that slice, 0 in the others."""
    test_rows = tiny.ends[1][1:]  # the row after training and validation
    tier = tiny.items["tier"].gather(tiny.item_id[test_rows] - 1)
    run = write_run(tmp_path / "run", tiny, "a", pl.Series(tier == "head").to_frame("h")["h"])
    table = slices(pl.read_parquet(run / "per_user.parquet"), tiny)
    for name, value in (
        table.filter(pl.col("slice").str.starts_with("target")).select("slice", "hit_rate@10").iter_rows()
    ):
        assert value == (name == "target: head")


def test_cold_users_and_cold_targets(tiny: Dataset, tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", tiny, "a", pl.col("user_id") % 2 == 0)
    users = pl.read_parquet(run / "per_user.parquet")
    assert not slices(users, tiny)["slice"].str.starts_with("cold target").any()
    cold = users.with_columns(
        pl.when(pl.col("user_id") <= 4).then(pl.col("user_id") / 4).cast(pl.Float32).alias("cold_recall@10"),
        pl.when(pl.col("user_id") <= 4).then(0.5).cast(pl.Float32).alias("cold_ndcg@10"),
    )
    table = {row["slice"]: row for row in slices(cold, tiny).iter_rows(named=True)}
    assert table["cold target (recall@10)"]["users"] == 4 and table["cold target (recall@10)"]["ndcg@10"] == 0.5
    assert table["cold target (recall@10)"]["hit_rate@10"] == pytest.approx(0.625)
    length = tiny.ends[0][1:] - tiny.offsets[1:-1]  # training ratings of each user
    fewest = sorted(length)[round(0.1 * (len(length) - 1))]
    few = [user + 1 for user in range(len(length)) if length[user] <= fewest]
    row = table[f"cold user: up to {fewest} ratings"]
    assert row["users"] == len(few) and row["hit_rate@10"] == pytest.approx(sum(u % 2 == 0 for u in few) / len(few))


def test_variants_of_a_run_are_columns_of_their_own(tiny: Dataset, tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", tiny, "a", pl.col("user_id") > 0)
    users = pl.read_parquet(run / "per_user.parquet").with_columns(variant=pl.lit("good"))
    nothing = pl.col("hit_rate@10", "ndcg@10") * 0
    pl.concat([users, users.with_columns(nothing, variant=pl.lit("bad"))]).write_parquet(run / "per_user.parquet")
    record = json.loads((run / "metrics.json").read_text())
    record["test"] = {"good/ndcg@10": 0.5, "bad/ndcg@10": 0.0}
    (run / "metrics.json").write_text(json.dumps(record))
    table, _ = compare_slices([run])
    assert "a: good HR@10 / NDCG@10 | a: bad HR@10" in table and "| all | 120 | 1.0000 / 0.5000 | 0.0000 /" in table


def test_compare_slices_averages_seeds_and_refuses_two_datasets(tiny: Dataset, tmp_path: Path) -> None:
    runs = [write_run(tmp_path / str(k), tiny, "a", pl.col("user_id") % 2 == k, seed=k) for k in range(2)]
    table, _ = compare_slices(runs)
    assert "| all | 120 | 0.5000 / 0.2500 |" in table
    record = json.loads((runs[1] / "metrics.json").read_text())
    record["dataset"]["fingerprint"] = "another"
    (runs[1] / "metrics.json").write_text(json.dumps(record))
    with pytest.raises(InputError, match="cannot be in one table: dataset fingerprint"):
        compare_slices(runs)
    with pytest.raises(InputError, match="no such folder"):
        compare_slices([tmp_path / "nowhere"])
    pl.DataFrame({"user_id": [1], "auc": [0.5]}).write_parquet(runs[0] / "per_user.parquet")
    with pytest.raises(InputError, match="not a ranking run"):
        compare_slices(runs[:1])
    (runs[0] / "per_user.parquet").unlink()  # a run of a model without results by user
    with pytest.raises(InputError, match="not a ranking run"):
        compare_slices(runs[:1])


def test_ablations_of_one_config_are_columns_of_their_own(tiny: Dataset, tmp_path: Path) -> None:
    everyone, nobody = pl.col("user_id") > 0, pl.col("user_id") < 0
    runs = [write_run(tmp_path / "deep" / f"seed={k}", tiny, "a", everyone, k, layers=2) for k in range(2)]
    runs += [write_run(tmp_path / "flat" / f"seed={k}", tiny, "a", nobody, k, layers=1) for k in range(2)]
    table, _ = compare_slices(runs)
    assert "a (layers=2) HR@10 / NDCG@10 | a (layers=1) HR@10" in table
    assert "| all | 120 | 1.0000 / 0.5000 | 0.0000 / 0.0000 |" in table
    (runs[0] / "metrics.json").unlink()
    with pytest.raises(InputError, match="not finished"):
        compare_slices(runs)


def test_demo_prints_both_rows_and_the_correlations(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    quiet = ["--trainer.logger", "false", "--trainer.enable_progress_bar", "false", "--trainer.max_epochs=1"]
    monkeypatch.setenv("MSMREC_CACHE", str(cache))
    demo([*quiet, "--data.root", "elsewhere"])  # from now on the dataset is prepared, its raw files are not in data/
    result = demo(quiet)
    printed = capsys.readouterr().out
    assert "demo_sasrec" in printed and "demo_msmrec" in printed and "Spearman" in printed
    assert len(result) == 6 and all(-1 <= value <= 1 for value in result.values())


def test_only_the_first_process_of_a_demo_removes_and_prints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The others run the same command while the first one writes its runs."""
    monkeypatch.chdir(tmp_path)
    trained: list[str] = []

    def train(args: list[str]) -> None:
        trained.append(args[1])
        there = [path.exists() for path in written]
        assert there == [process == "1"] * 2  # all are gone before the first training starts the others

    monkeypatch.setattr("msmrec.verbs.demo.build", MagicMock())
    monkeypatch.setattr("msmrec.verbs.demo.train", train)
    for process in ("1", "0"):
        written = [Path("runs") / name / "metrics.json" for name in ("demo_sasrec", "demo_msmrec")]
        for path in written:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        monkeypatch.setenv("LOCAL_RANK", process)
        if process == "1":
            assert demo() == {} and not capsys.readouterr().out
        else:
            with pytest.raises(FileNotFoundError, match="demo_sasrec"):  # nothing was trained
                demo()
    assert trained == ["demo_sasrec.yaml", "demo_msmrec.yaml"] * 2


def test_verbs(real_data: Path, cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    args = ["--config", "msmrec_ml100k.yaml", "--data.root", str(real_data), "--data.cache", str(cache)]
    prepare.main(args)
    assert '"num_items": 1349' in capsys.readouterr().out
    describe.main(args)
    shares = {
        line.split()[0]: float(line.split()[1][:-1]) for line in capsys.readouterr().out.strip().splitlines()[-9:]
    }
    assert shares["narrative"] > 95 and shares["acting"] > 95
    embed.main([*args, "--model.init_args.text.encoder", "TfidfSvdEncoder"])
    assert "(1350, 9, 64) vectors" in capsys.readouterr().out
    with pytest.raises(InputError, match="reads no texts"):
        describe.main(["--config", "sasrec_ml100k.yaml", "--data.root", str(real_data), "--data.cache", str(cache)])
