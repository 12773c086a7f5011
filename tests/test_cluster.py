"""What runs do on a cluster, as far as one process can show it; tests/test_slurm.py has the rest."""

import json
import uuid
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from tests.tiny_configs import TINY_DATA

from msmrec import cluster
from msmrec.artifacts import InputError
from msmrec.cli import build, train
from msmrec.resume import wandb_id


@pytest.fixture
def one_of_two(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"NTASKS": "2", "NTASKS_PER_NODE": "2", "JOB_NAME": "x", "PROCID": "1", "LOCALID": "1"}.items():
        monkeypatch.setenv(f"SLURM_{name}", value)


def test_a_checkpoint_is_replaced_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, io = tmp_path / "last.ckpt", cluster.AtomicCheckpointIO()
    io.save_checkpoint({"epoch": 1}, path)

    def cut(checkpoint: Any, where: Path) -> None:
        assert where.parent == tmp_path  # on the same disk
        where.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr("lightning.fabric.plugins.io.torch_io._atomic_save", cut)
    with pytest.raises(KeyboardInterrupt):
        io.save_checkpoint({"epoch": 2}, path)
    assert torch.load(path)["epoch"] == 1 and [p.name for p in tmp_path.iterdir()] == ["last.ckpt"]


def test_lightning_does_not_requeue(one_of_two: None) -> None:
    assert cluster.is_one_of_many()
    (environment,) = (p for p in cluster.plugins(None) if isinstance(p, SLURMEnvironment))
    assert not environment.auto_requeue
    own = cluster.AtomicCheckpointIO()
    assert cluster.plugins([own])[0] is own and cluster.plugins(own)[0] is own


@pytest.mark.filterwarnings("ignore:The `srun` command is available")
def test_who_is_waited_for() -> None:
    def trainer(environment: Any, processes: int = 2) -> Any:
        return SimpleNamespace(world_size=processes, strategy=SimpleNamespace(cluster_environment=environment))

    assert cluster.others_wait(trainer(SLURMEnvironment()))  # which started the other one, too
    assert not cluster.others_wait(trainer(LightningEnvironment()))  # this process is going to start it
    assert not cluster.others_wait(trainer(SLURMEnvironment(), processes=1))


def test_without_slurm_there_is_no_cluster(monkeypatch: pytest.MonkeyPatch, tiny_root: Path, cache: Path) -> None:
    monkeypatch.delenv("SLURM_NTASKS", raising=False)
    assert not cluster.is_one_of_many()
    args = [*TINY_DATA, "--data.root", str(tiny_root), "--data.cache", str(cache)]
    trainer = build(["--config", "sasrec_ml100k.yaml", *args], save=False).trainer
    assert not cluster.others_wait(trainer)
    assert isinstance(trainer.strategy.checkpoint_io, cluster.AtomicCheckpointIO)


def test_upstream_runs_know_nothing_of_the_others(one_of_two: None, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(args: list[str], env: dict[str, str]) -> int:
        assert args == ["--config", "a.yaml"] and "PATH" in env
        assert not [name for name in env if "SLURM" in name or "RANK" in name]
        return 2

    monkeypatch.setattr("msmrec.cluster.train_in_child", run)
    with pytest.raises(InputError, match="exit status 2"):
        cluster.train_alone(["--config", "a.yaml"])


def test_a_wandb_id_is_no_number_to_yaml(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("uuid.uuid4", lambda: uuid.UUID("61e49971" * 4))
    with pytest.raises(ValueError, match="could not convert"):  # 61e49971 is infinity, to the parser's YAML too
        float(wandb_id(tmp_path))


def test_trainings_of_one_process_are_apart_in_wandb(tiny_root: Path, cache: Path, tmp_path: Path) -> None:
    args = ["--config", "sasrec_ml100k.yaml", *(a for a in TINY_DATA if "logger" not in a), "--trainer.max_epochs=1"]
    args += ["--data.root", str(tiny_root), "--data.cache", str(cache), "--data.protocol.min_item_count=0"]
    runs = [train([*args, "--run_dir", str(tmp_path / name)]) for name in ("one", "two")]
    ids = [[path.stem.removeprefix("run-") for path in run.glob("wandb/offline-run-*/run-*.wandb")] for run in runs]
    assert [len(of_run) for of_run in ids] == [1, 1] and ids[0] != ids[1]
    for run, (own,) in zip(runs, ids, strict=True):
        (run / "metrics.json").rename(run / "metrics_before.json")  # as if it had been killed at the very end
        logged = (run / "csv" / "metrics.csv").read_text()
        train([*args, "--run_dir", str(run)])
        assert (run / "csv" / "metrics-0.csv").read_text() == logged  # the logger would have deleted it
        again = {path.stem.removeprefix("run-") for path in run.glob("wandb/offline-run-*/run-*.wandb")}
        assert again == {own}
        before = json.loads((run / "metrics_before.json").read_text())
        assert json.loads((run / "metrics.json").read_text())["test"] == before["test"]
