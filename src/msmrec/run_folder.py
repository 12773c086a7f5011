"""A run's folder before and after its training: whose it is, how it goes on, and the run opened again."""

import contextlib
import json
import os
import pickle
import sys
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from filelock import FileLock, Timeout

from msmrec.arguments import joined, layers
from msmrec.artifacts import InputError, disk_error, first_line
from msmrec.data.prepare import Dataset

if TYPE_CHECKING:  # reading a run's record needs neither
    from msmrec.data.datamodule import RecDataModule
    from msmrec.models.base import Module


@dataclass(frozen=True)
class OpenRun:
    """A finished run whose model can be asked; `msmrec.finished.open_run` makes one."""

    folder: Path
    model: "Module"
    """With the best checkpoint's weights, in evaluation mode."""
    data: "RecDataModule"
    record: dict[str, Any]
    """metrics.json"""


def read_record(run: Path) -> dict[str, Any]:
    """metrics.json of a run.

    Raises:
        InputError: there is no such folder, the run is not finished, or its record is broken.
    """
    if not run.is_dir():
        raise InputError(f"{run}: no such folder; name a run, such as runs/msmrec_ml1m/seed=0")
    for name in ("config.yaml", "metrics.json"):
        if not (run / name).is_file():
            raise InputError(f"{run}: no {name}; it is no run, or its training did not end")
    try:
        record = json.loads((run / "metrics.json").read_text())
    except ValueError as error:
        raise InputError(f"{run}/metrics.json is broken ({first_line(error)}); train the run again") from None
    if missing := {"config", "dataset", "protocol", "test", "train"} - set(record):
        raise InputError(f"{run}/metrics.json: no {', '.join(sorted(missing))}; made by another version: train again")
    return dict(record)


def dataset_of(run: Path) -> Dataset:
    """The prepared dataset of a finished run, which must still lie in the run's cache.

    Raises:
        InputError: as `read_record`, or the dataset is gone.
    """
    info = read_record(run)["dataset"]
    cache = yaml.safe_load((run / "config.yaml").read_text())["data"]["cache"]
    folder = Path(cache or os.environ.get("MSMREC_CACHE", "artifacts")) / "datasets"
    folder /= f"{info['name']}-{info['fingerprint']}"
    if not folder.is_dir():
        again = f"python -m msmrec prepare --config {run}/config.yaml"
        raise InputError(f"{run}: its dataset {folder} is not there; make it: {again}")
    return Dataset(folder)


def is_finished(run: Path, config: dict[str, Any]) -> bool:
    """Whether the folder holds the finished run of this config: model, data, seed and number of epochs."""
    if not all((run / name).exists() for name in ("metrics.json", "config.yaml")) or differs(run, config):
        return False
    before = yaml.safe_load((run / "config.yaml").read_text())
    return bool(before["trainer"]["max_epochs"] == config["trainer"]["max_epochs"])


def where_upstream_is(run: Path) -> list[str]:
    """For the command line that opens a run: --runs where a moved run's upstream runs were moved with it.

    They are then beside it, and not where its config.yaml says.
    """
    config = yaml.safe_load((run / "config.yaml").read_text())
    needs = [joined(layers(need)) for need in config.get("needs") or []]
    names = [f"{need}/seed={config['seed_everything']}/metrics.json" for need in needs]
    beside = run.resolve().parent.parent
    if all((Path(config["runs"]) / name).exists() for name in names):
        return []
    return ["--runs", str(beside)] if all((beside / name).exists() for name in names) else []


def unfinished(run: Path, config: dict[str, Any]) -> str | None:
    """The last checkpoint of an unfinished run in this folder, if it is the same run.

    Args:
        run: its folder. config: of the run that is to go on.

    Raises:
        InputError: the folder holds a finished run, another one, or one of other processes or precision.
    """
    if (run / "metrics.json").exists():
        raise InputError(f"{run} holds a finished run; remove it, or give another folder by --run_dir")
    last = run / "checkpoints" / "last.ckpt"
    if not last.exists():
        return None
    if part := differs(run, config):
        raise InputError(f"{run} holds an unfinished run with another {part}; remove it, or give another --run_dir")
    before, now = yaml.safe_load((run / "config.yaml").read_text())["trainer"], config["trainer"]
    for what, was, are, given in (
        ("processes", _processes(before), _processes(now), ("devices", "num_nodes")),
        ("trainer.precision", before.get("precision"), now.get("precision"), ("precision",)),
    ):
        if was and are and was != are:
            again = " ".join(f"--trainer.{key}={before.get(key) or 1}" for key in given)
            raise InputError(
                f"{run} holds an unfinished run with {what} {was}, not {are}, which would change its results; give"
                f" {again}, or another --run_dir"
            )
    print(f"resuming {last}", file=sys.stderr)
    with contextlib.suppress(FileNotFoundError):  # the logger would delete what was logged until now
        logged = run / "csv" / "metrics.csv"
        logged.rename(logged.with_name(f"metrics-{len(list(logged.parent.glob('metrics-*.csv')))}.csv"))
    return str(last)


@contextlib.contextmanager
def claimed(run: Path, may_wait: bool) -> Iterator[bool]:
    """Keeps other processes from training into a run's folder; yields whether one had to be waited for.

    The folder of a finished run is left as it is.

    Raises:
        InputError: another process trains into it, and this one may not wait for it.
    """
    if (run / "metrics.json").exists():
        yield False
        return
    run.mkdir(parents=True, exist_ok=True)
    lock, waits = FileLock(run / ".lock"), False
    try:
        lock.acquire(timeout=0)
    except Timeout:
        if not may_wait:
            raise InputError(f"{run}: another process trains into it; wait, or give another --run_dir") from None
        print(f"{run}: another process trains into it; waiting", file=sys.stderr)
        waits = True
        lock.acquire(poll_interval=0.5)
    for folder in (run, run / "checkpoints"):
        for left in folder.glob(".tmp-????????-*"):  # by a process that was killed while it wrote; see `atomic_file`
            left.unlink(missing_ok=True)
    try:
        yield waits
    finally:
        lock.release()


def wandb_id(run: Path) -> str:
    """The id of a folder's W&B run: the one that its config.yaml holds, so that a resumed run stays one run there."""
    if (run / "config.yaml").exists():
        loggers = yaml.safe_load((run / "config.yaml").read_text())["trainer"].get("logger") or []
        for logger in loggers if isinstance(loggers, list) else [loggers]:
            if isinstance(logger, dict) and (before := logger.get("init_args", {}).get("id")):
                return str(before)
    return "r" + uuid.uuid4().hex[:7]  # config.yaml keeps it, and YAML reads 61e49971 as a number: infinity


def differs(run: Path, config: dict[str, Any]) -> str | None:
    """The first part in which the run's own config.yaml differs from `config`.

    What is null counts as not there, so that a run made before an option existed is still the same run.
    """
    before = without_nulls(yaml.safe_load((run / "config.yaml").read_text()))
    now = without_nulls(config)
    return next((part for part in ("model", "data", "seed_everything") if before.get(part) != now.get(part)), None)


def _processes(trainer: dict[str, Any]) -> int | None:
    """How many train together; None where the machine decides."""
    devices = trainer.get("devices")
    count = len(devices) if isinstance(devices, list) else devices
    return count * (trainer.get("num_nodes") or 1) if isinstance(count, int) and count > 0 else None


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


def without_nulls(part: Any) -> Any:
    """A part of a config without its nulls, and without what they leave empty."""
    if isinstance(part, dict):
        return {key: made for key, value in part.items() if (made := without_nulls(value)) not in (None, {})}
    return [without_nulls(value) for value in part] if isinstance(part, list) else part
