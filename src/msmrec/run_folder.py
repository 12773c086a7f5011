"""A run's folder as others read it: which folders are runs, what their files say, and the dataset they were made on."""

import json
import os
import pickle
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl
import yaml

from msmrec.artifacts import InputError, disk_error, first_line
from msmrec.data.prepare import Dataset, read_parquet
from msmrec.data.root import at_home

if TYPE_CHECKING:  # reading a run's files needs neither
    from msmrec.data.datamodule import RecDataModule
    from msmrec.models.base import Module

# Of data.*, what changes no result.
PLACES = ("data.seed", "data.root", "data.cache", "data.eval_batch_size")
VARIANTS = "model.init_args.variants."


@dataclass(frozen=True)
class Run:
    """A run folder, or one of the variants that it compares; `metrics` is None where it is not finished."""

    folder: Path
    metrics: dict[str, Any] | None
    config: dict[str, Any]
    """config.yaml, flat: model.init_args.lr -> 0.001"""
    variant: str = ""

    @property
    def name(self) -> str:
        """The folder as warnings name it: sasrec_ml1m/seed=0."""
        return folder_name(self.folder)

    @property
    def record(self) -> dict[str, Any]:
        """metrics.json of a finished run."""
        assert self.metrics is not None
        return self.metrics

    @cached_property
    def settings(self) -> dict[str, Any]:
        """The part of the config that two seeds of one row must share."""
        mine = {k: v for k, v in self.config.items() if k.startswith(("model.", "data.")) and k not in PLACES}
        return {
            k: v for k, v in mine.items() if not k.startswith(VARIANTS) or k.startswith(f"{VARIANTS}{self.variant}.")
        }

    def per_user(self) -> pl.DataFrame:
        """per_user.parquet: a row a test user."""
        table = read_parquet(self.folder / "per_user.parquet")
        return table.filter(pl.col("variant") == self.variant).drop("variant") if self.variant else table


def folder_name(folder: Path) -> str:
    """sasrec_ml1m/seed=0, or the folder's own name where it is no seed's."""
    return f"{folder.parent.name}/{folder.name}" if folder.name.startswith("seed=") else folder.name


def without_seed(folder: Path) -> str:
    """sasrec_ml1m of sasrec_ml1m/seed=0, or the folder's own name."""
    return folder_name(folder).partition("/")[0]


@dataclass(frozen=True)
class OpenRun:
    """A finished run whose model can be asked; `msmrec.finished_run.open_run` makes one."""

    folder: Path
    model: "Module"
    """With the best checkpoint's weights, in evaluation mode."""
    data: "RecDataModule"
    record: dict[str, Any]
    """metrics.json"""


def find_runs(paths: Sequence[Path]) -> list[Run]:
    """The runs in and below `paths`, in their order; those below one path by name, seed=2 before seed=10.

    A run that compares variants is one run for each of them.

    Raises:
        InputError: a path does not exist or holds no run, or a run's files cannot be read.
    """
    runs = []
    for path in paths:
        if not path.is_dir():
            raise InputError(f"{path}: no such folder; name run folders, or folders that hold them")
        if not (found := [run for folder in _run_folders(path) for run in _variants(read_run(folder))]):
            raise InputError(f"{path}: no run in it or below it (a run has config.yaml or metrics.json)")
        runs += found
    return runs


def _variants(run: Run) -> list[Run]:
    """Its metrics are called <variant>/<metric>."""
    test: dict[str, float] = run.metrics["test"] if run.metrics else {}
    if not any("/" in key for key in test):
        return [run]
    parts: dict[str, dict[str, float]] = defaultdict(dict)
    for key, value in test.items():
        variant, _, metric = key.partition("/")
        parts[variant][metric] = value
    return [replace(run, metrics={**run.record, "test": mine}, variant=name) for name, mine in parts.items()]


def _run_folders(path: Path) -> Iterator[Path]:
    for folder, below, files in os.walk(path):
        if {"config.yaml", "metrics.json"} & set(files):
            below.clear()  # a logger's files inside a run are no runs
            yield Path(folder)
        hidden = [name for name in below if name.startswith(".")]
        below[:] = sorted(set(below) - set(hidden), key=lambda n: (len(n), n) if n.startswith("seed=") else (0, n))


def read_run(folder: Path) -> Run:
    """A run folder as it is, finished or not.

    Raises:
        InputError: its files are broken, or no training's.
    """
    metrics, config = None, {}
    if (folder / "metrics.json").is_file():
        metrics = read_keys(folder / "metrics.json")
    if (folder / "config.yaml").is_file():
        config = flat(read_keys(folder / "config.yaml"))
    if metrics is not None and (missing := {"config", "dataset", "protocol", "test"} - set(metrics)):
        raise InputError(f"{folder}/metrics.json: no key {', '.join(sorted(missing))}; it is no training's result")
    return Run(folder, metrics, config)


def read_keys(path: Path, *needed: str) -> dict[str, Any]:
    """metrics.json or config.yaml of a run.

    Raises:
        InputError: it is broken, or lacks a key that is needed.
    """
    try:
        content = json.loads(path.read_text()) if path.suffix == ".json" else yaml.safe_load(path.read_text())
    except (FileNotFoundError, IsADirectoryError, ValueError, yaml.YAMLError) as error:
        raise InputError(f"{path} is gone or broken ({first_line(error)}); train the run again") from None
    parts = ("dataset", "protocol", "test", "train", "model", "data", "trainer")
    if not isinstance(content, dict) or not all(isinstance(content.get(part, {}), dict) for part in parts):
        raise InputError(f"{path} is gone or broken (no keys, or none in a part); train the run again")
    if missing := set(needed) - set(content):
        raise InputError(f"{path}: no {', '.join(sorted(missing))}; made by another version: train again")
    return content


def read_finished(folder: Path) -> Run:
    """A finished run's folder.

    Raises:
        InputError: there is no such folder, the run is not finished, or its files are broken.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; name a run, such as runs/msmrec_ml1m/seed=0")
    for name in ("config.yaml", "metrics.json"):
        if not (folder / name).is_file():
            raise InputError(f"{folder}: no {name}; it is no run, or its training did not end")
    return read_run(folder)


def dataset_of(run: Path) -> Dataset:
    """The prepared dataset of a finished run, which must still lie in the run's cache.

    Raises:
        InputError: as `read_finished`, or the dataset is gone.
    """
    made = read_finished(run)
    info, cache = made.record["dataset"], made.config.get("data.cache")
    folder = at_home(cache or os.environ.get("MSMREC_CACHE", "artifacts")) / "datasets"
    folder /= f"{info['name']}-{info['fingerprint']}"
    if not folder.is_dir():
        again = f"python -m msmrec prepare --config {run}/config.yaml"
        raise InputError(f"{run}: its dataset {folder} is not there; make it: {again}")
    return Dataset(folder)


def load_safely(ckpt_path: str | None, run: Callable[[], Any]) -> Any:
    """Runs what reads a checkpoint, and turns one that does not fit into one line.

    Raises:
        InputError: the checkpoint is of another model, or cannot be read.
    """
    try:
        return run()
    except (RuntimeError, OSError, EOFError, pickle.UnpicklingError) as error:
        if ckpt_path and "state_dict" in str(error):
            first = next(line.strip() for line in str(error).splitlines()[1:] if line.strip())
            raise InputError(f"{ckpt_path}: not a checkpoint of this config's model ({first[:160]})") from None
        if disk_error(error):  # a training that reads a checkpoint writes some, too
            raise
        if ckpt_path and (not isinstance(error, RuntimeError) or "PytorchStreamReader" in str(error)):
            raise InputError(f"{ckpt_path}: not a readable checkpoint; remove it, or name another") from None
        raise


def flat(part: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"model": {"lr": 1}} as {"model.lr": 1}."""
    keys: dict[str, Any] = {}
    for key, value in (part or {}).items():
        keys |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return keys


def without_nulls(part: Any) -> Any:
    """A part of a config without its nulls, and without what they leave empty."""
    if isinstance(part, dict):
        return {key: made for key, value in part.items() if (made := without_nulls(value)) not in (None, {})}
    return [without_nulls(value) for value in part] if isinstance(part, list) else part
