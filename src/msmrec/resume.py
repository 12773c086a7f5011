"""Whether a training may write into a run's folder, whose that is, and how an unfinished run goes on."""

import contextlib
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from msmrec.artifacts import InputError
from msmrec.run_folder import read_keys, without_nulls


def is_finished(run: Path, config: dict[str, Any]) -> bool:
    """Whether the folder holds the finished run of this config: model, data, seed and number of epochs."""
    if not all((run / name).exists() for name in ("metrics.json", "config.yaml")) or differs(run, config):
        return False
    before = read_keys(run / "config.yaml", "trainer")
    return bool(before["trainer"]["max_epochs"] == config["trainer"]["max_epochs"])


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
    before, now = read_keys(run / "config.yaml", "trainer")["trainer"], config["trainer"]
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
        loggers = read_keys(run / "config.yaml").get("trainer", {}).get("logger") or []
        for logger in loggers if isinstance(loggers, list) else [loggers]:
            if isinstance(logger, dict) and (before := logger.get("init_args", {}).get("id")):
                return str(before)
    return "r" + uuid.uuid4().hex[:7]  # config.yaml keeps it, and YAML reads 61e49971 as a number: infinity


def differs(run: Path, config: dict[str, Any]) -> str | None:
    """The first part in which the run's own config.yaml differs from `config`.

    What is null counts as not there, so that a run made before an option existed is still the same run.
    """
    before = without_nulls(read_keys(run / "config.yaml"))
    now = without_nulls(config)
    return next((part for part in ("model", "data", "seed_everything") if before.get(part) != now.get(part)), None)


def _processes(trainer: dict[str, Any]) -> int | None:
    """How many train together; None where the machine decides."""
    devices = trainer.get("devices")
    count = len(devices) if isinstance(devices, list) else devices
    return count * (trainer.get("num_nodes") or 1) if isinstance(count, int) and count > 0 else None
