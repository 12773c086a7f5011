"""Run folders as a training would have left them, for tests of tables."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import yaml

from msmrec.evaluation.compare import Comparison, compare

PROTOCOL = {"split": "leave_one_out", "min_user_count": 5, "candidates": "all items"}


def write_run(
    folder: Path,
    hits: np.ndarray | list[float],
    config: str = "a_model",
    record: dict[str, Any] | None = None,
    protocol: dict[str, Any] | None = None,
    **changes: Any,
) -> Path:
    """A finished ranking run with these hits of users 1, 2, ...; `changes`: x__y=1 is x.y in config.yaml."""
    hits = np.asarray(hits, float)
    seed = int(folder.name.removeprefix("seed=")) if folder.name.startswith("seed=") else 0
    write_config(folder, seed, **changes)
    table = {"user_id": np.arange(1, len(hits) + 1), "hit_rate@10": hits, "ndcg@10": hits / 2}
    pl.DataFrame(table).write_parquet(folder / "per_user.parquet")
    made = {
        "config": config,
        "git_commit": "abc",
        "seed": seed,
        "dataset": {"name": "tiny", "fingerprint": "f1", "num_users": len(hits)},
        "protocol": PROTOCOL | (protocol or {}),
        "test": {"hit_rate@10": hits.mean(), "ndcg@10": hits.mean() / 2, "coverage": 0.5},
    }
    (folder / "metrics.json").write_text(json.dumps(made | (record or {})))
    return folder


def write_config(folder: Path, seed: int = 0, **changes: Any) -> Path:
    folder.mkdir(parents=True)
    config: dict[str, Any] = {
        "trainer": {"max_epochs": 20},
        "model": {"class_path": "msmrec.models.sasrec.SASRec", "init_args": {"dropout": 0.1, "k": 8}},
        "data": {"seed": seed, "cache": str(folder), "max_seq_len": 50},
    }
    for key, value in changes.items():
        *path, last = key.split("__")
        part = config
        for name in path:
            part = part[name]
        part[last] = value
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    return folder


def small(*paths: Path, **options: Any) -> Comparison:
    return compare(paths, resamples=200, **options)


def random_hits(rate: float, seed: int, users: int = 200) -> np.ndarray:
    return (np.random.default_rng(seed).random(users) < rate).astype(float)
