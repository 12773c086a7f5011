"""What a logger is told: W&B's offline files, read back as `wandb sync` would read them; TensorBoard and CSV."""

import json
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import polars as pl
import pytest
import yaml
from lightning.pytorch.loggers import WandbLogger
from tests.tiny_configs import TINY_DATA, tiny_config, tiny_text
from wandb.errors import CommError

from msmrec.cli import train
from msmrec.tracking import start_wandb

SHORT = ["--trainer.max_epochs=2", "--trainer.check_val_every_n_epoch=1"]


def records(run: Path) -> list[Any]:
    """The protobuf records of a finished run, once its writer, another process, has put down the last one."""
    deadline = time.monotonic() + 60
    while True:
        found = records_so_far(run)
        if "exit" in [record.WhichOneof("record_type") for record in found]:
            return found
        assert time.monotonic() < deadline, f"no end in {run}"
        time.sleep(0.2)


def records_so_far(run: Path) -> list[Any]:
    """Of a run's one .wandb file: blocks of 32 KiB, as in a LevelDB log, after 7 bytes of head."""
    from wandb.proto.wandb_internal_pb2 import Record

    (path,) = run.glob("wandb/offline-run-*/run-*.wandb")
    data = path.read_bytes()
    assert data[:4] == b":W&B"
    found, place, whole = [], 7, b""
    while place + 7 <= len(data):
        left = 32768 - place % 32768
        if left < 7:
            place += left
            continue
        _, length, kind = struct.unpack("<IHB", data[place : place + 7])
        if place + 7 + length > len(data):
            break
        whole += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # full, or the last part of several
            found.append(Record.FromString(whole))
            whole = b""
    return found


def artifacts(run: Path) -> Iterator[Any]:
    """Those that are no table's."""
    for record in records(run):
        if record.WhichOneof("record_type") == "artifact" and record.artifact.type != "run_table":
            yield record.artifact


@pytest.fixture(scope="module")
def runs(tiny_root: Path, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A projector, the LightGCN that it needs, and MSMRec with its checkpoint uploaded."""
    folder = tmp_path_factory.mktemp("tracked")
    text = tiny_text(tiny_root)
    args = [a for a in TINY_DATA if "logger" not in a] + ["--data.root", str(tiny_root), "--data.cache", str(cache)]
    args += [*SHORT, "--data.protocol.min_item_count=0", f"--runs={folder}/runs"]
    projector = tiny_config("projector_ml1m.yaml", folder, text)
    train(["--config", str(projector), *args, "--model.init_args.alignment.dropout=0.3"])
    msmrec = tiny_config("msmrec_ml100k.yaml", folder, text)
    train(["--config", str(msmrec), *args, "--upload_checkpoint=true", "--seed_everything=4"])
    return {path.parent.name: path for path in (folder / "runs").glob("*/seed=*")}


def test_a_run_names_what_it_made_and_what_it_builds_on(runs: dict[str, Path]) -> None:
    made = {a.name: a for a in artifacts(runs["lightgcn_ml1m_clicks"])}
    assert set(made) == {"lightgcn_ml1m_clicks-seed-0-results", "lightgcn_ml1m_clicks-seed-0-vectors"}
    assert not any(a.use_after_commit for a in made.values())
    mine = list(artifacts(runs["projector_ml1m"]))
    used = {a.name: a for a in mine if a.use_after_commit}
    # the same name and content: the server knows them for the version that the upstream run made
    assert {name: a.digest for name, a in used.items()} == {name: a.digest for name, a in made.items()}
    assert {a.name for a in mine if not a.use_after_commit} == {
        "projector_ml1m-seed-0-results",
        "projector_ml1m-seed-0-vectors",
    }
    for artifact in mine:
        assert artifact.finalize
        for entry in artifact.manifest.contents:  # what sync would upload is there: the run's own file
            path = Path(entry.local_path)
            assert path.is_file() and path.stat().st_size == entry.size and "seed=0" in path.parts


def test_checkpoints_are_uploaded_where_the_config_says_so(runs: dict[str, Path]) -> None:
    models = [a.manifest.contents[0] for a in artifacts(runs["msmrec_ml100k"]) if a.type == "model"]
    assert [Path(entry.local_path) for entry in models] == [
        (runs["msmrec_ml100k"] / "checkpoints" / "best.ckpt").absolute()
    ]
    assert {a.type for a in artifacts(runs["projector_ml1m"])} == {"results", "vectors"}


def test_groups_and_tags_say_what_an_ablation_changes(runs: dict[str, Path]) -> None:
    (run,) = (r.run for r in records(runs["projector_ml1m"]) if r.WhichOneof("record_type") == "run")
    assert run.run_group == "projector_ml1m" and run.display_name == "projector_ml1m/seed=0"
    assert {"projector_ml1m", "Projector", "Simulated", "alignment.dropout=0.3"} <= set(run.tags)
    assert not [tag for tag in run.tags if "root" in tag or "cache" in tag or len(tag) > 64]
    (run,) = (r.run for r in records(runs["msmrec_ml100k"]) if r.WhichOneof("record_type") == "run")
    assert run.run_group == "msmrec_ml100k" and run.display_name == "msmrec_ml100k/seed=4"


def test_tables_show_lists_and_gate_weights(runs: dict[str, Path]) -> None:
    run = runs["msmrec_ml100k"]
    shown: dict[str, pl.DataFrame] = {}
    for path in run.glob("wandb/offline-run-*/files/media/table/tables/*.table.json"):
        table = json.loads(path.read_text())
        shown[path.name.rsplit("_", 2)[0]] = pl.DataFrame(table["data"], schema=table["columns"], orient="row")
    assert set(shown) == {"recommendations", "gate_weights", "gate_weights_of_users"}
    lists = shown["recommendations"]
    hits = lists.group_by("user_id").agg(pl.col("target").sum(), pl.len())
    assert hits["len"].to_list() == [10] * 20 and lists["title"].null_count() == 0
    own = pl.read_parquet(run / "per_user.parquet").select(pl.col("user_id").cast(pl.Int64), "hit_rate@10")
    assert (hits.join(own, on="user_id")["target"] == hits.join(own, on="user_id")["hit_rate@10"]).all()
    users = shown["gate_weights_of_users"]
    names = shown["gate_weights"]["modality"].to_list()
    assert len(users) == 120 and users.select(pl.sum_horizontal(names)).to_series().to_list() == pytest.approx(
        [1] * 120
    )
    means = dict(shown["gate_weights"].iter_rows())
    assert means == pytest.approx({name: users[name].mean() for name in names})


def test_sync_would_take_the_files(runs: dict[str, Path]) -> None:
    command = [sys.executable, "-m", "wandb", "sync", "--dry-run", str(runs["projector_ml1m"] / "wandb")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "Would sync 1 run" in done.stdout + done.stderr


def test_out_of_reach_of_wandb_a_run_is_logged_offline(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    asked = []

    def init(**settings: Any) -> Any:
        asked.append(settings)
        if settings.get("mode") != "offline":
            raise CommError("Timed out: connection refused\nConsider increasing the init_timeout")
        return SimpleNamespace(id=settings["id"])

    monkeypatch.setattr("wandb.init", init)
    monkeypatch.setattr("wandb.teardown", lambda: asked.append({}))
    logger = WandbLogger(save_dir=tmp_path, id="rabc")
    start_wandb(logger)
    assert [a.get("mode") for a in asked] == [None, None, "offline"]
    assert not any("anonymous" in a for a in asked) and logger.experiment.id == "rabc"
    said = capsys.readouterr().err
    assert "W&B is out of reach (Timed out: connection refused); this run is logged offline" in said
    assert "init_timeout" not in said


def test_tensorboard_and_csv_by_config(tiny_root: Path, cache: Path, tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    overlay = tmp_path / "loggers.yaml"
    logger = {"class_path": "TensorBoardLogger", "init_args": {"save_dir": "runs"}}
    overlay.write_text(yaml.safe_dump({"trainer": {"logger": [logger, {"class_path": "CSVLogger"}]}}))
    args = [a for a in TINY_DATA if "logger" not in a] + ["--data.root", str(tiny_root), "--data.cache", str(cache)]
    config = ["--config", "sasrec_ml100k.yaml", "--config", str(overlay)]
    run = train([*config, *args, *SHORT, "--data.protocol.min_item_count=0", "--run_dir", str(tmp_path / "run")])
    (folder,) = {path.parent for path in run.rglob("events.out.tfevents.*")}
    read = accumulator.EventAccumulator(str(folder)).Reload()
    test = json.loads((run / "metrics.json").read_text())["test"]
    assert [e.value for e in read.Scalars("test/ndcg@10")] == pytest.approx([test["ndcg@10"]])
    assert len(read.Scalars("val/ndcg@10")) == 3  # two epochs, and the best checkpoint again
    (logged,) = run.rglob("metrics.csv")
    assert pl.read_csv(logged)["test/ndcg@10"].drop_nulls().to_list() == pytest.approx([test["ndcg@10"]])
    assert not list(run.glob("wandb"))
