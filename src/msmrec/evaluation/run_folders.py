"""Reads run folders for a comparison: finds them, refuses what is not comparable, puts seeds of one config together."""

import json
import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import polars as pl
import yaml

from msmrec.arguments import CONFIGS, layers
from msmrec.artifacts import InputError, first_line
from msmrec.data.prepare import SplitProtocol

# Of data.*, what changes no result.
PLACES = ("data.seed", "data.root", "data.cache", "data.eval_batch_size")
# Keys of metrics.json's protocol that say how a model was trained or chosen, not what it was tested on.
TRAINING = ("val_samples", "train_samples", "channels", "k", "retrieval", "edges_above", "before", "users")
# The dataset's fingerprint covers these, so a run that does not write one of them down is still comparable.
IN_FINGERPRINT = (*(field.name for field in fields(SplitProtocol)), "users_without_history")
VARIANTS = "model.init_args.variants."
LIMITS = ("trainer.limit_train_batches", "trainer.limit_test_batches")


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
        table = pl.read_parquet(self.folder / "per_user.parquet")
        return table.filter(pl.col("variant") == self.variant).drop("variant") if self.variant else table


def folder_name(folder: Path) -> str:
    """sasrec_ml1m/seed=0, or the folder's own name where it is no seed's."""
    return f"{folder.parent.name}/{folder.name}" if folder.name.startswith("seed=") else folder.name


def without_seed(folder: Path) -> str:
    """sasrec_ml1m of sasrec_ml1m/seed=0, or the folder's own name."""
    return folder_name(folder).partition("/")[0]


@dataclass
class Group:
    """Seeds of one config: a row of the table."""

    name: str
    runs: list[Run]
    x: float | None = None
    line: str = ""
    """What the row is called without its x: rows of one line are joined in a plot."""


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
    try:
        if (folder / "metrics.json").is_file():
            metrics = json.loads((folder / "metrics.json").read_text())
        if (folder / "config.yaml").is_file():
            config = flat(yaml.safe_load((folder / "config.yaml").read_text()))
    except (ValueError, yaml.YAMLError) as error:
        raise InputError(f"{folder}: metrics.json or config.yaml is broken ({first_line(error)})") from None
    if metrics is not None and (missing := {"config", "dataset", "protocol", "test"} - set(metrics)):
        raise InputError(f"{folder}/metrics.json: no key {', '.join(sorted(missing))}; it is no training's result")
    return Run(folder, metrics, config)


def flat(part: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"model": {"lr": 1}} as {"model.lr": 1}."""
    keys: dict[str, Any] = {}
    for key, value in (part or {}).items():
        keys |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return keys


def refuse_different_tests(runs: Sequence[Run]) -> None:
    """Refuses finished runs that were not tested on the same thing.

    Raises:
        InputError: another dataset or protocol than the first run's; names both runs and the key.
    """
    for run in runs[1:]:
        first, second = runs[0].record, run.record
        pairs = [
            (f"dataset {key}", *(r["dataset"].get(key) for r in (first, second))) for key in ("name", "fingerprint")
        ]
        protocols = first["protocol"], second["protocol"]
        for key in sorted((set(protocols[0]) | set(protocols[1])) - set(TRAINING)):
            if key not in IN_FINGERPRINT or all(key in protocol for protocol in protocols):
                pairs.append((f"protocol {key}", *(protocol.get(key) for protocol in protocols)))
        # Named is what says most: a key that both have; the fingerprint, which covers many keys, last.
        for key, a, b in sorted(pairs, key=lambda pair: (pair[0] == "dataset fingerprint", None in pair)):
            if a != b:
                raise InputError(
                    f"{runs[0].folder} and {run.folder} cannot be in one table: {key} is {a!r} in the first, {b!r} in"
                    f" the second"
                )


def group_runs(
    runs: Sequence[Run], x: str | None = None, names: Literal["config", "folder"] = "config"
) -> tuple[list[Group], list[str]]:
    """Rows of the table, and warnings: about duplicates, and configs of which one lacks keys.

    Runs of one name, that of their config or of the folder above the seeds, share a row unless model, data or `x`
    differ; then what differs is added to the row's name. A key that a run's config does not have at all, because it was
    made before the option existed, is no difference.

    Raises:
        InputError: `x` is no number in a run's config.
    """
    warnings: list[str] = []
    by_name: dict[str, list[Group]] = defaultdict(list)
    seen: dict[tuple[Path, str], Run] = {}
    for run in runs:
        if seen.setdefault((run.folder.resolve(), run.variant), run) is not run:
            warnings.append(f"{run.folder} is given twice; counted once")
            continue
        value = run.config.get(x) if x else None
        if x and (isinstance(value, bool) or not isinstance(value, int | float)):
            raise InputError(f"{run.folder}/config.yaml: {x} is {value!r}, no number; name another --x")
        name = str(run.record["config"]) if names == "config" else without_seed(run.folder)
        groups = by_name[name := f"{name}: {run.variant}" if run.variant else name]
        same = (g for g in groups if g.x == value and not _differences(g.runs[0], run))
        if (group := next(same, None)) is None:
            groups.append(Group(name, [run], value))
            continue
        if twin := next((r for r in group.runs if r.record.get("seed") == run.record.get("seed")), None):
            differ = " but other results" if run.record["test"] != twin.record["test"] else ""
            warnings.append(f"{run.folder} is left out: {twin.folder} has the same config and seed{differ}")
            continue
        if lacking := sorted(set(group.runs[0].settings) ^ set(run.settings)):
            warnings.append(
                f"{group.runs[0].name} and {run.name} are taken for one config, though one does not record"
                f" {', '.join(lacking[:3])}{' ...' if lacking[3:] else ''}"
            )
        group.runs.append(run)
    for groups in by_name.values():
        _name_apart(groups, x)
    return [group for groups in by_name.values() for group in groups], warnings


def _differences(a: Run, b: Run) -> list[str]:
    return [key for key in a.settings if key in b.settings and a.settings[key] != b.settings[key]]


def _name_apart(groups: list[Group], x: str | None) -> None:
    """Adds to the names of rows of one config what distinguishes them: a few keys, or else their folder."""
    keys = dict.fromkeys(key for a in groups for b in groups for key in _differences(a.runs[0], b.runs[0]) if key != x)
    for group in groups:
        config = group.runs[0].config
        values = [f"{key.rpartition('.')[2]}={config[key]}" for key in keys if key in config]
        if len(keys) > 3 or any(isinstance(config.get(key), list) for key in keys):
            values = [without_seed(group.runs[0].folder)]
        group.line = f"{group.name} ({', '.join(values)})" if values else group.name
        if x is not None:
            values.append(f"{x.rpartition('.')[2]}={group.x:g}")
        group.name = f"{group.name} ({', '.join(values)})" if values else group.name


def doubts(groups: Sequence[Group], x: str | None = None) -> list[str]:
    """Warnings about what makes rows less comparable: commits, numbers of seeds, trainings that were cut short.

    Args:
        groups: rows. x: differs on purpose.
    """
    runs = [run for group in groups for run in group.runs]
    found = []
    commits: dict[str, int] = defaultdict(int)
    for run in runs:
        commits[run.record.get("git_commit") or "unknown"] += 1
    if len(commits) > 1:
        found.append(f"runs of different git commits (how many): {', '.join(f'{c} ({n})' for c, n in commits.items())}")
    seeds = {group.name: len(group.runs) for group in groups}
    if len(set(seeds.values())) > 1:
        found.append(f"different numbers of seeds: {', '.join(f'{name} {n}' for name, n in seeds.items())}")
    for group in groups:
        found += _cut(group) if x != "trainer.max_epochs" else []
    return found


def _cut(group: Group) -> list[str]:
    epochs = [run.config.get("trainer.max_epochs") for run in group.runs]
    known = [e for e in (*epochs, _declared_epochs(group.runs[0].record["config"])) if e is not None]
    reasons = []
    for run, own in zip(group.runs, epochs, strict=True):
        limits = [f"{key} {run.config[key]}" for key in LIMITS if run.config.get(key) is not None]
        if own is not None and 0 < own < max(known):  # 0 trains nothing, and means it
            limits.append(f"trainer.max_epochs {own} instead of {max(known)}")
        reasons += [f"{run.name} ({', '.join(limits)})"] if limits else []
    return [f"cut short: {', '.join(reasons)}"] if reasons else []


def _declared_epochs(config: str) -> int | None:
    """trainer.max_epochs as the config's own files say, which later ones override; "a+b" is b laid over a."""
    files = [sorted(CONFIGS.rglob(part)) for part in layers(f"base+{config}")]
    if not all(files):
        return None  # a config from elsewhere
    declared = None
    for found in files:
        declared = flat(yaml.safe_load(found[0].read_text())).get("trainer.max_epochs", declared)
    return declared
