"""Two processes train and evaluate together: nothing is lost or counted twice, and all that a run leaves is whole."""

import json
import os
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest
from tests.tiny_configs import TINY_DATA, tiny_config, tiny_text

from msmrec.finished_run import evaluate, open_run

TWO = ["--trainer.devices=2", "--trainer.strategy=ddp", "--trainer.accelerator=cpu"]
ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize(
    ("config", "metric", "table"),
    [
        ("sasrec_ml100k.yaml", "test/ndcg@10", "per_user.parquet"),
        ("rallrec_tiny_ml1m.yaml", "test/auc", "predictions.parquet"),
    ],
)
def test_a_run_of_two_processes_is_that_of_one(
    config: str, metric: str, table: str, tiny_root: Path, cache: Path, tmp_path: Path
) -> None:
    path = tiny_config(config, tmp_path, tiny_text(tiny_root))
    args = [*TINY_DATA, "--data.root", str(tiny_root), "--data.cache", str(cache), "--runs", str(tmp_path / "runs")]
    args += ["--data.protocol.min_item_count=0", "--data.tokens_per_batch=512"]
    run = tmp_path / "run"
    script = [str(ROOT / "train.py")] if "sasrec" in config else ["-m", "msmrec", "train"]  # as a suite does
    command = [sys.executable, *script, "--config", str(path), *args, *TWO, "--run_dir", str(run)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, "\n".join(line for line in done.stderr.splitlines() if "rank1" in line)[-1500:]
    record = json.loads((run / "metrics.json").read_text())
    assert open_run(run).data.place()[1:] == (0, 1)  # it is opened by one process, which reads all of it
    alone = evaluate(["--run", str(run)])
    assert alone[metric] == pytest.approx(record["test"][metric.split("/")[1]], abs=1e-6)
    rows = pl.read_parquet(run / table)
    columns = ["user_id", "item_id"] if "item_id" in rows.columns else ["user_id"]
    assert rows.select(columns).is_unique().all() and len(rows) > 80
