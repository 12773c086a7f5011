"""A finished run: evaluated again, or opened to be asked."""

import argparse
import json
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from msmrec.arguments import find_config, joined, layers
from msmrec.artifacts import InputError
from msmrec.cli import build, plain_config, train
from msmrec.data.datamodule import RecDataModule
from msmrec.models.base import Module
from msmrec.resume import differs
from msmrec.run_folder import OpenRun, load_safely, read_finished, read_keys


def evaluate(args: Sequence[str] | None = None) -> dict[str, float]:
    """Evaluates a run's best checkpoint again and prints its metrics; the run's files stay as they are.

    A config whose model has nothing to train needs no checkpoint: it is evaluated, and leaves a run as train.py does.
    """
    parser = argparse.ArgumentParser("evaluate.py", allow_abbrev=False)  # evaluate.py explains the arguments
    for name in ("--run", "--ckpt_path"):
        parser.add_argument(name)
    parser.add_argument("--config", action="append", default=[])  # another one is laid over it, as for train.py
    parser.add_argument("--split", choices=["val", "test"], default="test")
    known, overrides = parser.parse_known_args(args)
    if known.run and known.config:
        raise InputError("evaluate.py takes --run or --config, not both: a run has its own config")
    if known.run:
        configs, ckpt = [Path(known.run) / "config.yaml"], known.ckpt_path or f"{known.run}/checkpoints/best.ckpt"
    elif known.config and known.ckpt_path:
        configs, ckpt = [Path(find_config(config)) for config in known.config], known.ckpt_path
    elif known.config:
        return _evaluate_untrained([*_named(known.config), *overrides], known.split)
    else:
        raise InputError("evaluate.py needs --run FOLDER, or --config FILE with --ckpt_path FILE")
    for path in (*configs, Path(ckpt)):
        if not path.is_file():
            raise InputError(f"{path}: not found; was the run trained to its end?")
    if known.run and not (Path(known.run) / "metrics.json").exists():
        print(f"{known.run}: its training did not end; these are the numbers of {ckpt} so far", file=sys.stderr)
    place = _place(Path(known.run)) if known.run else []
    cli = build([*_named(configs), *place, *overrides], save=False)
    run = cli.trainer.validate if known.split == "val" else cli.trainer.test
    result = load_safely(
        ckpt, lambda: run(cli.model, datamodule=cli.datamodule, ckpt_path=ckpt, verbose=False, weights_only=False)
    )
    metrics = {k: float(v) for k, v in result[0].items()}
    if cli.trainer.is_global_zero:
        print(cli.model.report(Path(known.run or joined(known.config)), metrics))
    return metrics


def _named(configs: Sequence[object]) -> list[str]:
    return [word for config in configs for word in ("--config", str(config))]


def open_run(folder: Path, overrides: Sequence[str] = ()) -> OpenRun:
    """Opens a finished run: its model with the best checkpoint's weights, its data, and its record.

    Args:
        folder: the run's. overrides: as on the command line, e.g. --data.root.

    Raises:
        InputError: no run, an unfinished one, or a checkpoint that does not fit its config or data.
    """
    record, path = read_finished(folder).record, folder / "checkpoints" / "best.ckpt"
    if not path.is_file():
        raise InputError(f"{path}: not found; the run's numbers stand, but its model is gone: train it again")
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)  # seed and hardware are a training's news
    cli = build(["--config", str(folder / "config.yaml"), *_place(folder), *overrides], save=False)
    model, data = cli.model, cli.datamodule
    assert isinstance(model, Module) and isinstance(data, RecDataModule)
    data.trainer = model.trainer = cli.trainer
    cli.trainer.datamodule = data  # type: ignore[attr-defined]
    checkpoint = load_safely(str(path), lambda: torch.load(path, map_location=data.place()[0], weights_only=False))
    model.on_load_checkpoint(checkpoint)
    for callback in cli.trainer.callbacks:  # type: ignore[attr-defined]
        callback.setup(cli.trainer, model, "test")
    model.setup("test")  # graphs, language models, and room for what the checkpoint holds, as before an evaluation
    load_safely(str(path), lambda: model.load_state_dict(checkpoint["state_dict"], strict=model.strict_loading))
    return OpenRun(folder, model.to(data.place()[0]).eval(), data, record)


def _place(run: Path) -> list[str]:
    """What the command line that opens a run adds to its config: one process, and --runs where the run was moved.

    The upstream runs that were moved with it are then beside it, and not where its config.yaml says.
    """
    alone = ["--trainer.devices=1", "--trainer.num_nodes=1", "--trainer.strategy=auto"]  # it reads all of the data
    config = read_keys(run / "config.yaml", "runs", "seed_everything")
    needs = [joined(layers(need)) for need in config.get("needs") or []]
    names = [f"{need}/seed={config['seed_everything']}/metrics.json" for need in needs]
    beside = run.resolve().parent.parent
    where_it_says, where_it_is = (
        all((runs / name).exists() for name in names) for runs in (Path(config["runs"]), beside)
    )
    return ["--runs", str(beside), *alone] if where_it_is and not where_it_says else alone


def _evaluate_untrained(args: Sequence[str], split: str) -> dict[str, float]:
    """The metrics of a config whose model has nothing to train, from its run where that is there."""
    cli = build(args, save=False)
    assert isinstance(cli.model, Module)
    run = Path(cli.config.run_dir)
    if cli.model.trains:
        raise InputError(f"{type(cli.model).__name__} is trained: give its --ckpt_path, or --run FOLDER")
    if not (run / "metrics.json").exists():
        train(args)
        return {f"{split}/{k}": v for k, v in json.loads((run / "metrics.json").read_text())[split].items()}
    if part := differs(run, plain_config(cli, cli.config)):
        raise InputError(f"{run} holds a run with another {part}; remove it, or give another --run_dir")
    return evaluate(["--run", str(run), "--split", split])
