"""A run's folder: killed, resumed, moved, waited for, and refused where something else is in it."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from filelock import FileLock
from tests.tiny_configs import for_model, tiny_config

from msmrec.artifacts import InputError
from msmrec.cli import build, train
from msmrec.command import main
from msmrec.finished_run import _place, evaluate, open_run
from msmrec.resume import claimed, differs, unfinished, wandb_id
from msmrec.run_folder import dataset_of


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

    monkeypatch.setattr("msmrec.resume.print", heard, raising=False)
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


def test_a_run_from_before_an_option_existed_is_the_same_run(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("model: {init_args: {lr: 0.1, text: {dim: 8}}}\ndata: {seed: 0}\n")
    now = {"model": {"init_args": {"lr": 0.1, "text": {"dim": 8, "noise": None}}}, "data": {"seed": 0}}
    assert differs(tmp_path, now) is None
    now["model"]["init_args"]["text"]["noise"] = {"kind": "swap"}  # type: ignore[index, call-overload]
    assert differs(tmp_path, now) == "model"


def test_a_broken_config_of_a_run_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "metrics.json").write_text('{"config": "a", "dataset": {}, "protocol": {}, "test": {}, "train": {}}')
    for content, words in (
        (b"", "gone or broken"), (b"data: {\nx: [", "gone or broken"), (b"\xff", "gone or broken"),
        (b"data: x", "gone or broken"),
    ):  # fmt: skip
        (tmp_path / "config.yaml").write_bytes(content)
        with pytest.raises(InputError, match=rf"config\.yaml.*{words}"):
            dataset_of(tmp_path)
    for reads in (_place, wandb_id, lambda run: differs(run, {})):
        (tmp_path / "config.yaml").write_text("- 1")
        with pytest.raises(InputError, match=r"config\.yaml is gone or broken"):
            reads(tmp_path)
