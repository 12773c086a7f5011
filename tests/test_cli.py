"""Runs as users start them, in process on the tiny world: every config, evaluation, and what mistakes say."""

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from tests.tiny_configs import for_model, tiny_config

from msmrec.arguments import CONFIGS
from msmrec.artifacts import InputError
from msmrec.cli import train
from msmrec.finished_run import evaluate
from msmrec.learned_fusion import train_fusion
from msmrec.models.sasrec import SASRec

ALL_CONFIGS = sorted(path.name for path in CONFIGS.glob("*.yaml") if path.name != "base.yaml")


@pytest.mark.parametrize("config", [name for name in ALL_CONFIGS if name != "llama_untuned_ml1m.yaml"])  # tests/ctr
def test_every_config_parses_and_fits_two_batches(
    config: str, tiny_args: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # a learned fusion takes 500 steps wherever it is
    monkeypatch.setattr("msmrec.fusion.train_fusion", lambda *args: train_fusion(*args[:4], 5, args[5]))
    args = for_model(config, tiny_args)
    text = json.loads(tiny_args[-1].split("=", 1)[1])
    path = tiny_config(config, tmp_path, text)  # the shipped file, its sizes and what it needs made tiny
    run, runs = str(tmp_path / "run"), str(tmp_path / "runs")
    train(["--config", str(path), *args, "--trainer.fast_dev_run=2", "--run_dir", run, "--runs", runs])
    assert not list(Path(runs).glob("*/*/metrics.json"))  # upstream runs of a dry run lie apart
    assert not (tmp_path / "metrics.json").exists()  # a dry run leaves no result


@pytest.mark.parametrize("config", ["sasrec_ml100k.yaml", "msmrec_ml100k.yaml", "kar_ml100k.yaml"])
def test_a_run_leaves_its_record_and_is_evaluated_again_to_the_last_digit(
    config: str, tiny_args: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = train(
        [
            "--config",
            config,
            *for_model(config, tiny_args),
            "--trainer.max_epochs=2",
            "--run_dir",
            str(tmp_path / "run"),
        ]
    )
    record = json.loads((run / "metrics.json").read_text())
    assert record["config"] == config.removesuffix(".yaml") and record["protocol"]["seen_filter"] == "the whole history"
    assert record["train"]["epochs"] == 2 and record["dataset"]["num_users"] == 120
    users = pl.read_parquet(run / "per_user.parquet")
    assert len(users) == record["dataset"]["num_test"]
    assert users["ndcg@10"].mean() == pytest.approx(record["test"]["ndcg@10"], abs=1e-6)
    assert (
        load_file(run / "item_embeddings.safetensors")["item_embeddings"].shape[0] == record["dataset"]["num_items"] + 1
    )
    # the checkpoint is enough: neither texts nor encoder are asked
    for method in ("item_text.ItemText.vectors", "item_text.ItemText.texts", "user_text.UserText.vectors"):
        monkeypatch.setattr(f"msmrec.text.{method}", None)
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*") if path.is_file()}
    for split in ("val", "test"):
        again = evaluate(["--run", str(run), "--split", split, "--trainer.enable_progress_bar=false"])
        assert {k.split("/")[1]: v for k, v in again.items()} == record[split]
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*") if path.is_file()} == before
    with pytest.raises(InputError, match="holds a finished run"):
        train(["--config", config, *for_model(config, tiny_args), "--run_dir", str(run)])


def test_mistakes_are_one_line(tiny_args: list[str], tmp_path: Path) -> None:
    sasrec = ["--config", "sasrec_ml100k.yaml", *for_model("sasrec", tiny_args), "--run_dir", str(tmp_path / "a")]
    msmrec = ["--config", "msmrec_ml100k.yaml", *tiny_args, "--run_dir", str(tmp_path / "b")]
    cases = {
        "embeding_dim": [*sasrec, "--model.init_args.embeding_dim=8"],
        "max_epoch": [*sasrec, "--trainer.max_epoch=8"],
        "no_such.yaml": ["--config", "no_such.yaml"],
        "must be a multiple": [*sasrec, "--model.init_args.num_heads=3"],
        "num_negatives 0": [*sasrec, "--model.init_args.loss=bce", "--model.init_args.num_negatives=0"],
        "take bf16-mixed": [*sasrec, "--trainer.precision=bf16-true"],
        "temperature 0": [*sasrec, "--model.init_args.temperature=0"],
        "cutoffs": [*sasrec, "--model.init_args.cutoffs=[]"],
        "dropout 3": [*sasrec, "--model.init_args.dropout=3"],
        "lr -1": [*sasrec, "--model.init_args.lr=-1"],
        "lr: null is none of its values": [*sasrec, "--model.init_args.lr=null"],
        "MPS": [*sasrec, "--trainer.accelerator=mps"],
        "embedding_dim 0 must": [*sasrec, "--model.init_args.embedding_dim=0"],
        "num_heads 0": [*sasrec, "--model.init_args.num_heads=0"],
        "data.max_seq_len 0": [*sasrec, "--data.max_seq_len=0"],
        "nowhere.jsonl": [*msmrec, "--model.init_args.text.knowledge=[nowhere.jsonl]", "--trainer.max_epochs=1"],
    }  # fmt: skip
    for words, args in cases.items():
        with pytest.raises(InputError, match=words) as caught:
            train(args)
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "a").exists()


def test_the_metric_that_chooses_the_checkpoint_is_among_the_cutoffs(tiny_args: list[str], tmp_path: Path) -> None:
    args = ["--config", "sasrec_ml100k.yaml", *for_model("sasrec", tiny_args), "--trainer.max_epochs=1"]
    run = train([*args, "--model.init_args.cutoffs=[7,5]", "--run_dir", str(tmp_path)])
    tested = json.loads((run / "metrics.json").read_text())["test"]
    assert {f"ndcg@{k}" for k in (5, 7, 10)} == {name for name in tested if name.startswith("ndcg")}
    vectors = load_file(run / "item_embeddings.safetensors")["item_embeddings"]
    sizes = {"num_items": len(vectors) - 1, "embedding_dim": vectors.shape[1], "max_seq_len": 200}
    model = SASRec.load_from_checkpoint(run / "checkpoints" / "best.ckpt", weights_only=False, **sizes)
    torch.testing.assert_close(F.normalize(model.item_embedding.weight.detach()), vectors)


@pytest.mark.parametrize(
    ("model", "protocol", "words"),
    [
        (
            "SASRec",
            {"split": "user_ratio", "ratios": [0.8, 0.2, 0]},
            r"the test part .*ratios \[0\.8, 0\.2, 0\.0\] gives",
        ),
        ("SASRec", {"split": "user_ratio", "ratios": [0.8, 0, 0.2]}, r"the validation part .*data\.protocol\.ratios"),
        ("Popularity", {"split": "user_ratio", "ratios": [0.8, 0.2, 0]}, r"the test part .*data\.protocol\.ratios"),
        ("Popularity", {"split": "user_ratio", "ratios": [0.8, 0, 0.2]}, ""),  # nothing to choose a checkpoint of
        ("SASRec", {"min_target_rating": 9}, r"the test part .*data\.protocol\.min_target_rating 9"),
    ],
)
def test_a_part_that_is_needed_and_empty_is_said_before_training(
    model: str, protocol: dict[str, Any], words: str, tiny_args: list[str], tmp_path: Path
) -> None:
    config = f"{model.lower()}_ml100k.yaml" if model == "SASRec" else "popularity_mlsmall.yaml"
    given = [f"--data.protocol.{key}={json.dumps(value)}".replace('"', "") for key, value in protocol.items()]
    args = ["--config", config, *for_model("sasrec", tiny_args), *given, "--run_dir", str(tmp_path / "run")]
    args += ["--trainer.max_epochs=1"] if model == "SASRec" else ["--data.protocol.min_target_rating=null"]
    if not words:
        assert (train(args) / "metrics.json").exists()
        return
    with pytest.raises(InputError, match=f"simulated-.*: {words}") as caught:
        train(args)
    assert "\n" not in str(caught.value) and not (tmp_path / "run").exists()


def test_without_a_user_of_three_ratings_there_is_nobody_to_leave_one_out_of(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("user_id,item_id\n1,a\n1,b\n2,a\n2,b\n")
    source = {"interactions": "t.csv", "rating": None, "timestamp": None}
    args = [f"--data.source={json.dumps({'class_path': 'Table', 'init_args': source})}", "--model=SASRec"]
    args += ["--data.protocol.min_user_count=0", "--data.protocol.min_item_count=0", "--trainer.logger=false"]
    with pytest.raises(InputError, match=r"t: the test part is empty, .*leave_one_out takes it from users with three"):
        train([*args, "--data.root", str(tmp_path), "--data.cache", str(tmp_path), "--run_dir", str(tmp_path / "run")])


@pytest.mark.parametrize("above", [0, 9])
def test_labels_that_are_all_the_same_are_refused(above: int, tiny_args: list[str], tmp_path: Path) -> None:
    args = ["--config", "din_ml1m.yaml", *for_model("din_ml1m.yaml", tiny_args), "--trainer.max_epochs=1"]
    with pytest.raises(InputError, match=rf"data.label_above {above}: all [\d,]+ training samples are (clicks|none)"):
        train([*args, f"--data.label_above={above}", "--run_dir", str(tmp_path)])


def test_a_metric_that_nobody_logs_and_a_diverged_training_are_one_line(
    tiny_args: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    args = ["--config", "sasrec_ml100k.yaml", *for_model("sasrec", tiny_args), "--trainer.max_epochs=2"]
    with pytest.raises(InputError, match="val/typo") as caught:
        train([*args, "--checkpoint.monitor=val/typo", "--run_dir", str(tmp_path / "typo")])
    assert "\n" not in str(caught.value)
    monkeypatch.setattr("msmrec.models.sasrec.ranking_loss", lambda name, queries, *rest: queries.sum() * torch.nan)
    with pytest.raises(InputError, match=r"epoch 0: .* is NaN or infinite, training diverged"):
        train([*args, "--run_dir", str(tmp_path / "nan")])
    assert not (tmp_path / "nan" / "checkpoints" / "last.ckpt").exists()
    assert not (tmp_path / "nan" / "metrics.json").exists()


def test_a_checkpoint_of_another_dataset_or_model_is_refused(tiny_args: list[str], tmp_path: Path) -> None:
    args = ["--config", "sasrec_ml100k.yaml", *for_model("sasrec", tiny_args)]
    run = train([*args, "--trainer.max_epochs=1", "--run_dir", str(tmp_path / "run")])
    ckpt = ["--ckpt_path", str(run / "checkpoints" / "best.ckpt"), "--run_dir", str(tmp_path / "other")]
    with pytest.raises(InputError, match="trained on dataset"):
        train([*args, *ckpt, "--data.protocol.min_user_count=12"])
    with pytest.raises(InputError, match="not a checkpoint of this config's model"):
        train([*args, *ckpt, "--model.init_args.embedding_dim=32"])
    broken = tmp_path / "broken.ckpt"
    for content in ((run / "checkpoints" / "best.ckpt").read_bytes()[:5000], b"", b"no checkpoint"):
        broken.write_bytes(content)
        with pytest.raises(InputError, match="not a readable checkpoint"):
            train([*args, "--ckpt_path", str(broken), "--run_dir", str(tmp_path / "third")])


def test_wandb_works_offline_without_a_key(tiny_args: list[str], tmp_path: Path) -> None:
    args = [a for a in for_model("sasrec", tiny_args) if a not in ("--trainer.logger",)]
    args.remove("false")  # the logger's
    run = train(["--config", "sasrec_ml100k.yaml", *args, "--trainer.max_epochs=1", "--run_dir", str(tmp_path / "run")])
    assert list(run.glob("wandb/offline-run-*/run-*.wandb"))
    assert "val/ndcg@10" in next(run.glob("csv/**/metrics.csv")).read_text()


@pytest.mark.parametrize("config", ["sasrec_ml100k.yaml", "dcn_ml1m.yaml"])
def test_bf16_trains_and_is_evaluated_in_float32(config: str, tiny_args: list[str], tmp_path: Path) -> None:
    # The default where the hardware has bf16: Lightning alone refuses to clip beside a fused optimiser. Scores in
    # bfloat16 would tie.
    args = ["--config", config, *for_model(config, tiny_args), "--trainer.precision=bf16-mixed"]
    train([*args, "--trainer.max_epochs=1", "--run_dir", str(tmp_path)])
    record = json.loads((tmp_path / "metrics.json").read_text())
    assert record["train"]["precision"] == "bf16-mixed"
    exact = evaluate(["--run", str(tmp_path), "--trainer.precision=32-true"])
    assert {name.split("/")[1]: value for name, value in exact.items()} == record["test"]


@pytest.mark.parametrize("config", ["msmrec_ml100k.yaml", "din_ml1m.yaml", "rallrec_tiny_ml1m.yaml"])
def test_the_same_config_and_seed_give_the_same_to_the_last_bit(
    config: str, tiny_args: list[str], tmp_path: Path
) -> None:
    """The runs that they build on included: LightGCN, projector and small Llama are trained twice as well."""
    path = tiny_config(config, tmp_path, json.loads(tiny_args[-1].split("=", 1)[1]))
    runs = []
    for name in ("one", "two"):
        runs.append(train(["--config", str(path), *for_model("sasrec", tiny_args), "--runs", str(tmp_path / name)]))
        torch.rand(7)  # what came before changes nothing
    records = [json.loads((run / "metrics.json").read_text()) for run in runs]
    times = {"seconds", "seconds_per_epoch", "tokens_per_second", "peak_memory_mb"}
    for record in records:
        record["train"] = {key: value for key, value in record["train"].items() if key not in times}
        record["upstream"] = list(record["upstream"])
    assert records[0] == records[1]
    for file in ("per_user.parquet", "predictions.parquet"):
        if (runs[0] / file).exists():
            assert pl.read_parquet(runs[0] / file).equals(pl.read_parquet(runs[1] / file)), file
    states = [torch.load(run / "checkpoints" / "best.ckpt", weights_only=False)["state_dict"] for run in runs]
    assert states[0].keys() == states[1].keys() and len(states[0]) > 3
    for name, value in states[0].items():
        assert torch.equal(value, states[1][name]), name
