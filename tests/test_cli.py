"""Runs as users start them, in process on the tiny world: every config, resume, evaluation, and what mistakes say."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
import torch.nn.functional as F
import yaml
from filelock import FileLock
from safetensors.torch import load_file
from tests.tiny_configs import tiny_config

from msmrec.arguments import CONFIGS
from msmrec.artifacts import InputError
from msmrec.cli import build, train
from msmrec.command import main
from msmrec.finished import evaluate, open_run
from msmrec.learned_fusion import train_fusion
from msmrec.models.sasrec import SASRec
from msmrec.run_folder import claimed, differs, unfinished

ALL_CONFIGS = sorted(path.name for path in CONFIGS.glob("*.yaml") if path.name != "base.yaml")
TINY = ["--data.source", "Simulated"] + [
    f"--data.source.init_args.{key}={value}"
    for key, value in {
        "num_users": 120, "num_items": 60, "mean_interactions": 14, "num_modalities": 3, "num_aspects": 4,
    }.items()
]  # fmt: skip
QUIET = ["--trainer.logger", "false", "--trainer.enable_progress_bar", "false"]


@pytest.fixture
def tiny_args(tiny_root: Path, cache: Path) -> list[str]:
    knowledge = next(tiny_root.glob("simulated*/knowledge.jsonl"))
    schema = json.dumps([{"name": n, "prose": [n]} for n in ("narrative", "visual", "set")])
    text = {
        "knowledge": [str(knowledge)],
        "modalities": json.loads(schema),
        "encoder": {"class_path": "TfidfSvdEncoder"},
    }
    args = [
        *TINY,
        *QUIET,
        "--data.root",
        str(tiny_root),
        "--data.cache",
        str(cache),
        "--data.protocol.min_item_count=0",
    ]
    return [*args, "--data.tokens_per_batch=512", f"--model.init_args.text={json.dumps({**text, 'dim': 8})}"]


def for_model(config: str, args: list[str]) -> list[str]:
    """SASRec reads no texts."""
    return [a for a in args if "msmrec" in config or "kar" in config or "init_args.text" not in a]


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
        again = evaluate(["--run", str(run), "--split", split, *QUIET[2:]])
        assert {k.split("/")[1]: v for k, v in again.items()} == record[split]
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*") if path.is_file()} == before
    with pytest.raises(InputError, match="holds a finished run"):
        train(["--config", config, *for_model(config, tiny_args), "--run_dir", str(run)])


@pytest.mark.parametrize("config", ["msmrec_ml100k.yaml", "kar_ml100k.yaml"])
def test_killed_and_resumed_equals_uninterrupted(config: str, tiny_args: list[str], tmp_path: Path) -> None:
    args = [*for_model(config, tiny_args), "--trainer.max_epochs=4"]
    whole = train(["--config", config, *args, "--run_dir", str(tmp_path / "whole")])
    code = "import sys; from msmrec.cli import train; train(sys.argv[1:])"
    line = [sys.executable, "-c", code, "--config", config, *args, "--run_dir", str(tmp_path / "cut")]
    last, process = tmp_path / "cut" / "checkpoints" / "last.ckpt", subprocess.Popen(line)
    for _ in range(6000):
        if last.exists():
            break
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert last.exists() and not (tmp_path / "cut" / "metrics.json").exists()
    resumed = train(["--config", config, *args, "--run_dir", str(tmp_path / "cut")])
    states = [
        torch.load(run / "checkpoints" / "last.ckpt", weights_only=False)["state_dict"] for run in (whole, resumed)
    ]
    for name, value in states[0].items():
        assert torch.equal(value, states[1][name]), name
    results = [json.loads((run / "metrics.json").read_text()) for run in (whole, resumed)]
    assert results[0]["test"] == results[1]["test"]


def test_a_run_that_stopped_early_stays_stopped(tiny_args: list[str], tmp_path: Path) -> None:
    """Killed in its last test, it is tested when it goes on, and not trained further."""
    args = [*for_model("sasrec", tiny_args), "--trainer.max_epochs=40", "--trainer.check_val_every_n_epoch=1"]
    args += ["--early_stopping.patience=2", "--model.init_args.lr=0.1", "--run_dir", str(tmp_path)]
    run = train(["--config", "sasrec_ml100k.yaml", *args])
    whole = json.loads((run / "metrics.json").read_text())
    assert whole["train"]["epochs"] < 40
    (run / "metrics.json").unlink()
    train(["--config", "sasrec_ml100k.yaml", *args])
    again = json.loads((run / "metrics.json").read_text())
    assert again["train"]["epochs"] == whole["train"]["epochs"] and again["test"] == whole["test"]


def test_an_unfinished_run_that_is_moved_keeps_its_best_epoch(tiny_args: list[str], tmp_path: Path) -> None:
    args = ["--config", "sasrec_ml100k.yaml", *for_model("sasrec", tiny_args), "--trainer.check_val_every_n_epoch=1"]
    begun = train([*args, "--trainer.max_epochs=1", "--run_dir", str(tmp_path / "begun")])
    tested = json.loads((begun / "metrics.json").read_text())["test"]
    (begun / "metrics.json").unlink()  # as if it had been killed
    last = torch.load(begun / "checkpoints" / "last.ckpt", weights_only=False)
    for state in last["callbacks"].values():
        for path in state.get("best_k_models", {}):
            state["best_k_models"][path] = torch.tensor(1.0)  # so good that no later epoch is better
    torch.save(last, begun / "checkpoints" / "last.ckpt")
    moved = train([*args, "--trainer.max_epochs=2", "--run_dir", str(begun.rename(tmp_path / "moved"))])
    record = json.loads((moved / "metrics.json").read_text())
    assert record["train"]["epochs"] == 2 and record["train"]["best_epoch"] == 0 and record["test"] == tested


def test_an_interrupted_training_says_that_it_goes_on(
    tiny_args: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("msmrec.models.sasrec.ranking_loss", interrupt)
    args = ["--config", "sasrec_ml100k.yaml", *for_model("sasrec", tiny_args), "--run_dir", str(tmp_path)]
    handler = signal.getsignal(signal.SIGINT)
    try:
        with pytest.raises(SystemExit) as status:
            main(lambda: train(args))
    finally:
        signal.signal(signal.SIGINT, handler)  # Lightning ignores it from then on
    assert status.value.code == 130 and "the same command goes on" in capsys.readouterr().err


@pytest.mark.parametrize("ended", ["finished", "killed"])
def test_a_second_training_into_a_folder_waits_for_the_first(
    ended: str, tiny_args: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    args = ["--config", "sasrec_ml100k.yaml", *for_model("sasrec", tiny_args), "--trainer.max_epochs=1"]
    run = train([*args, "--run_dir", str(tmp_path)])
    results, said = run / "metrics.json", []
    aside, lock = results.rename(tmp_path / "aside"), FileLock(run / ".lock")
    lock.acquire()  # the other process

    def heard(text: str, **_: Any) -> None:
        said.append(text)
        if "another process trains into it; waiting" in text:  # which ends now
            assert not results.exists()
            if ended == "finished":
                aside.rename(results)
            lock.release()

    monkeypatch.setattr("msmrec.run_folder.print", heard, raising=False)
    assert train([*args, "--run_dir", str(run)]) == run and results.exists()
    assert said[1:] == ([] if ended == "finished" else [f"resuming {run}/checkpoints/last.ckpt"])


def test_half_written_files_of_a_killed_training_are_removed(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    for name in (".tmp-0a1b2c3d-config.yaml", "checkpoints/.tmp-0a1b2c3d-last.ckpt", "checkpoints/best.ckpt"):
        (tmp_path / name).touch()
    with claimed(tmp_path, may_wait=True):
        assert [path.name for path in tmp_path.rglob("*") if path.is_file() and path.suffix] == ["best.ckpt"]


def test_one_of_many_is_refused_where_another_process_trains(tmp_path: Path) -> None:
    refused = pytest.raises(InputError, match="another process trains into it; wait, or")
    with FileLock(tmp_path / ".lock"), refused, claimed(tmp_path, may_wait=False):
        raise AssertionError
    with claimed(tmp_path, may_wait=False) as waited:
        assert not waited


def test_a_run_that_was_killed_before_its_report_gets_it(tiny_args: list[str], tmp_path: Path) -> None:
    args = ["--config", "sasrec_ml100k.yaml", *for_model("sasrec", tiny_args), "--run_dir", str(tmp_path)]
    run = train([*args, "--trainer.max_epochs=1"])
    numbers = (run / "metrics.json").stat().st_mtime_ns
    (run / "report.html").unlink()
    for other in ("--trainer.max_epochs=2", "--model.init_args.dropout=0.45"):
        with pytest.raises(InputError, match="holds a finished run"):
            train([*args, "--trainer.max_epochs=1", other])
    assert train([*args, "--trainer.max_epochs=1"]) == run and (run / "report.html").exists()
    assert (run / "metrics.json").stat().st_mtime_ns == numbers
    with pytest.raises(InputError, match="holds a finished run"):
        train([*args, "--trainer.max_epochs=1"])


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
        "lr None": [*sasrec, "--model.init_args.lr=null"],
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
    broken.write_bytes((run / "checkpoints" / "best.ckpt").read_bytes()[:5000])
    with pytest.raises(InputError, match="not a readable checkpoint"):
        train([*args, "--ckpt_path", str(broken), "--run_dir", str(tmp_path / "third")])


def test_numbers_of_an_unfinished_run_are_called_so(
    tiny_args: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    args = ["--config", "sasrec_ml100k.yaml", *for_model("sasrec", tiny_args), "--trainer.max_epochs=1"]
    run = train([*args, "--run_dir", str(tmp_path)])
    finished = evaluate(["--run", str(run)])
    assert "did not end" not in capsys.readouterr().err
    (run / "metrics.json").unlink()
    assert evaluate(["--run", str(run)]) == finished
    assert f"{run}: its training did not end; these are the numbers of {run}/check" in capsys.readouterr().err


def test_a_moved_run_finds_the_runs_that_moved_with_it(tiny_args: list[str], tmp_path: Path) -> None:
    text = json.loads(tiny_args[-1].split("=", 1)[1])
    needed = tiny_config("lightgcn_ml1m.yaml", tmp_path, text)
    config = tiny_config("sasrec_ml100k.yaml", tmp_path, text, needs=[str(needed)])
    args = [*for_model("sasrec", tiny_args), "--trainer.max_epochs=1", "--runs", str(tmp_path / "before")]
    run = train(["--config", str(config), *args])
    (tmp_path / "before").rename(tmp_path / "after")
    run = tmp_path / "after" / run.relative_to(tmp_path / "before")
    tested = json.loads((run / "metrics.json").read_text())["test"]
    again = evaluate(["--run", str(run)])
    assert {name.split("/")[1]: value for name, value in again.items()} == tested
    assert open_run(run).data.upstream == {"lightgcn_ml1m": tmp_path / "after" / "lightgcn_ml1m" / "seed=0"}
    assert not (tmp_path / "before").exists()  # or it would have been trained again


def test_every_seed_has_its_own_folder_and_a_changed_config_does_not_resume(
    tiny_args: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    args = ["--config", "sasrec_ml100k.yaml", *for_model("sasrec", tiny_args)]
    cli = build([*args, "--seed_everything=3"], save=False)
    assert cli.config.run_dir == "runs/sasrec_ml100k/seed=3" and cli.datamodule.seed == 3
    run = train([*args, "--trainer.max_epochs=1", "--run_dir", str(tmp_path / "run")])
    (run / "metrics.json").unlink()  # as if it had not finished
    with pytest.raises(InputError, match="unfinished run with another model"):
        train([*args, "--run_dir", str(run), "--model.init_args.dropout=0.45"])


def test_other_processes_or_another_precision_do_not_resume(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "last.ckpt").touch()
    before = {"devices": 2, "num_nodes": 1, "precision": "bf16-mixed"}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({"trainer": before}))
    for same in ({}, {"devices": [0, 1]}, {"devices": "auto"}, {"devices": 1, "num_nodes": 2}):
        assert unfinished(tmp_path, {"trainer": {**before, **same}})
    refused = {"processes 2, not 4.* give --trainer.devices=2 --trainer.num_nodes=1, or": {"num_nodes": 2}}
    refused["precision bf16-mixed, not 32-true.* give --trainer.precision=bf16-mixed, or"] = {"precision": "32-true"}
    for words, other in refused.items():
        with pytest.raises(InputError, match=words):
            unfinished(tmp_path, {"trainer": {**before, **other}})


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


def test_a_run_from_before_an_option_existed_is_the_same_run(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("model: {init_args: {lr: 0.1, text: {dim: 8}}}\ndata: {seed: 0}\n")
    now = {"model": {"init_args": {"lr": 0.1, "text": {"dim": 8, "noise": None}}}, "data": {"seed": 0}}
    assert differs(tmp_path, now) is None
    now["model"]["init_args"]["text"]["noise"] = {"kind": "swap"}  # type: ignore[index, call-overload]
    assert differs(tmp_path, now) == "model"


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
