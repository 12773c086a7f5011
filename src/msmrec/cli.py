"""The command line: one YAML, one run folder.

    python train.py --config msmrec_ml1m.yaml [--model.init_args.lr 0.002] [--run_dir runs/mine]

Constructors are the schema: `--config C --help` and `--model.help MSMRec` print every field with its type, default and
meaning.
"""

import contextlib
import json
import logging
import os
import pkgutil
import sys
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from filelock import FileLock
from jsonargparse import ArgumentError, ParserError, set_parsing_settings
from lightning import LightningModule, Trainer, seed_everything
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from lightning.pytorch.cli import LightningCLI, SaveConfigCallback
from lightning.pytorch.loggers import WandbLogger

from msmrec import classes, cluster, resume  # noqa: F401 (classes: short names in configs)
from msmrec.arguments import CONFIGS, arguments, config_words, joined, layers, needs_of
from msmrec.artifacts import InputError, atomic_file, one_line
from msmrec.data.datamodule import RecDataModule
from msmrec.hardware import has_fast_bf16
from msmrec.models.base import Module
from msmrec.parser_errors import explain, refuse_empty
from msmrec.report.run_page import NAME as REPORT
from msmrec.report.run_page import report_of_training
from msmrec.tracking import place_in_wandb
from msmrec.training import fit_and_test, refuse_empty_parts

set_parsing_settings(docstring_parse_attribute_docstrings=True)  # --help explains the fields of dataclasses too

# What Lightning says about our loaders is not the user's business: they are indexed arrays, not worker processes.
QUIET = (
    "does not have many workers",
    "exists and is not empty",
    "callbacks used to create the checkpoint",
    "`srun` command is available",  # slurm/ uses it where it is wanted
    "nn.functional.all_gather is deprecated",
    "smaller than the logging interval",
    "LightningCLI's args parameter is intended",
    "dirpath has changed",  # another run's checkpoint, which is meant
    "isinstance\\(treespec, LeafSpec\\)",
)


class SaveConfig(SaveConfigCallback):
    """Writes the run's config.yaml, and hands the same to the logger as nested, filterable keys."""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Before the first batch, on the first process."""
        if self.already_saved or not trainer.is_global_zero:
            return
        self.already_saved = True
        with atomic_file(Path(trainer.default_root_dir) / "config.yaml") as path:
            self.parser.save(self.config, path, skip_none=False, overwrite=True, multifile=False)
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger):
                logger.log_hyperparams(self.config.as_dict())


class RunCLI(LightningCLI):
    """LightningCLI with a run folder, a checkpoint and early stopping that no config can forget."""

    def parse_arguments(self, parser: Any, args: Any) -> None:
        """Keeps what was given beside the configs."""
        self.given = [str(word) for word in args or []]
        super().parse_arguments(parser, args)

    def add_arguments_to_parser(self, parser: Any) -> None:
        """Adds what a run needs beyond model, data and trainer."""
        parser.add_argument(
            "--run_dir",
            type=str | None,
            default=None,
            help="Folder of the run; runs/<config name>/seed=<seed> if not given.",
        )
        parser.add_argument(
            "--ckpt_path",
            type=str | None,
            default=None,
            help="Checkpoint to start from, or the name of a run under needs for its best; an unfinished run finds its"
            " own last one. With trainer.max_epochs 0 it is evaluated, under what else the config says.",
        )
        parser.add_argument(
            "--needs",
            type=list[str],
            default=[],
            help="Configs whose runs this one builds on; trained first, on the same data, where they are not there. One"
            " laid over another: a.yaml+b.yaml.",
        )
        parser.add_argument("--runs", type=str, default="runs", help="Folder of the runs.")
        parser.add_argument(
            "--upload_checkpoint",
            type=bool,
            default=False,
            help="Whether W&B gets the best checkpoint beside results and vectors, as an artifact.",
        )
        parser.add_lightning_class_args(ModelCheckpoint, "checkpoint")
        parser.add_lightning_class_args(EarlyStopping, "early_stopping")
        parser.set_defaults(
            {
                "checkpoint.monitor": None,  # the model's own
                "checkpoint.mode": "max",
                "checkpoint.filename": "best",
                "checkpoint.enable_version_counter": False,
                "checkpoint.save_on_train_epoch_end": False,
                "early_stopping.monitor": "",  # the model's own
                "early_stopping.mode": "max",
                "early_stopping.patience": 10,
            }
        )
        parser.link_arguments("data.num_items", "model.init_args.num_items", apply_on="instantiate")
        parser.link_arguments("data.num_users", "model.init_args.num_users", apply_on="instantiate")
        parser.link_arguments("data.max_seq_len", "model.init_args.max_seq_len")
        parser.link_arguments("seed_everything", "data.seed", compute_fn=int)

    def before_instantiate_classes(self) -> None:
        """Fills in what the config leaves open: the run's folder, precision, what is monitored, the upstream runs."""
        config = self.config
        refuse_empty(config.model.class_path, vars(config.model.get("init_args") or {}))
        self._place_in_folder(config)
        limits = config.trainer.max_epochs, config.trainer.check_val_every_n_epoch
        if all(limits) and 0 < limits[0] < limits[1]:  # a short run is validated at its end rather than never
            config.trainer.check_val_every_n_epoch = limits[0]
        if config.trainer.precision is None:
            cuda = config.trainer.accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available()
            config.trainer.precision = "bf16-mixed" if has_fast_bf16(cuda) else "32-true"
        monitor = pkgutil.resolve_name(config.model.class_path).monitor
        config.checkpoint.monitor = config.checkpoint.monitor or monitor
        config.early_stopping.monitor = config.early_stopping.monitor or monitor
        mine = plain_config(self, config) if config.needs else {}
        _refuse_circles(config.needs)
        self.upstream = {joined(layers(need)): self._upstream(need, mine) for need in config.needs}
        if config.ckpt_path in self.upstream:
            config.ckpt_path = str(self.upstream[config.ckpt_path] / "checkpoints" / "best.ckpt")
        if self.upstream:
            seed_everything(config.seed_everything, verbose=False)  # whether they were trained just now changes nothing

    def _place_in_folder(self, config: Any) -> None:
        """Sets where everything that the run writes goes: its folder, and its place in W&B."""
        config.runs = os.path.expanduser(config.runs)  # of a config, where no shell has done it
        if config.run_dir is None:
            config.run_dir = f"{config.runs}/{_name(config) or 'run'}/seed={config.seed_everything}"
        config.run_dir = os.path.expanduser(config.run_dir)
        config.trainer.default_root_dir = config.run_dir
        config.checkpoint.dirpath = f"{config.run_dir}/checkpoints"
        loggers = config.trainer.logger if isinstance(config.trainer.logger, list) else [config.trainer.logger]
        for logger in loggers:
            if hasattr(logger, "init_args") and "save_dir" in logger.init_args:
                logger.init_args.save_dir = config.run_dir
            if getattr(logger, "class_path", "").endswith("WandbLogger"):
                logger.init_args.id = resume.wandb_id(Path(config.run_dir))
                given = logger.get("dict_kwargs") or {}
                logger.dict_kwargs = {**place_in_wandb(config, self.given), **given}

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """The Trainer, with the plugins that runs need on a cluster."""
        return super().instantiate_trainer(**kwargs, plugins=cluster.plugins(self.config_init.trainer.plugins))

    def after_instantiate_classes(self) -> None:
        """Tells the data where the upstream runs are."""
        self.datamodule.upstream = self.upstream

    def _upstream(self, need: str, config: dict[str, Any]) -> Path:
        """The run of a config under `needs`, on the data of this run's `config`; trained now if it is not there.

        Processes that need the same run wait for the one that trains it.
        """
        data, seed, trainer = config["data"], config["seed_everything"], config["trainer"]
        short = bool(trainer["fast_dev_run"]) or trainer["limit_train_batches"] is not None
        # A dry run must not leave a run that a real one would take for its upstream.
        runs = Path(config["runs"])
        runs = runs / "dry" if short and runs.name != "dry" else runs
        run = runs / joined(layers(need)) / f"seed={seed}"
        args = [*config_words(need), f"--seed_everything={seed}", "--run_dir", str(run), "--runs", str(runs)]
        for key in ("source", "root", "cache", "protocol", "label_above"):
            if data[key] is not None:
                args += [f"--data.{key}", data[key] if isinstance(data[key], str) else json.dumps(data[key])]
        args += [f"--trainer.accelerator={trainer['accelerator']}"]
        args += [] if trainer["logger"] else ["--trainer.logger=false"]
        args += ["--trainer.max_epochs=1", "--trainer.limit_train_batches=2"] if short else []
        run.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(run.parent / f".lock-{run.name}", timeout=24 * 3600):
            if not (run / "metrics.json").exists():
                print(f"{need}: needed and not there yet; training it first, into {run}", file=sys.stderr)
                try:
                    (cluster.train_alone if cluster.is_one_of_many() else train)(args)
                except InputError:
                    if not (run / "metrics.json").exists():  # or a training of its own, without needs, ended just now
                        raise
            now = self.parser.parse_args(arguments(args))
            if part := resume.differs(run, plain_config(self, now)):
                raise InputError(f"{run}, which this run needs, was trained with another {part}; remove it")
        return run


def build(args: Sequence[str], save: bool) -> RunCLI:
    """Parses `args` and builds model, data and trainer; nothing runs yet.

    Args:
        save: for a run that leaves its config and logs; without, no logger is made.

    Raises:
        InputError: the command line or a config does not fit the constructors.
    """
    if os.path.expanduser("~") == "~":  # a user whom the container does not know; W&B asks for a home
        os.environ["HOME"] = tempfile.mkdtemp(prefix="msmrec-home-")
    if "WANDB_API_KEY" not in os.environ and not Path("~/.netrc").expanduser().exists():
        os.environ.setdefault("WANDB_MODE", "offline")
    for message in QUIET:
        warnings.filterwarnings("ignore", f".*{message}.*")
    logging.getLogger("lightning.pytorch.utilities.rank_zero").addFilter(_is_news)  # the same filter is added once
    torch.set_float32_matmul_precision("high")  # TF32 on GPUs that have it
    try:
        return RunCLI(
            Module,
            RecDataModule,
            seed_everything_default=0,
            subclass_mode_model=True,
            auto_configure_optimizers=False,
            run=False,
            args=arguments(args if save else [*args, "--trainer.logger", "false"]),
            save_config_callback=SaveConfig if save else None,
            parser_kwargs={
                "default_config_files": [str(CONFIGS / "base.yaml")],
                "exit_on_error": False,
                "allow_abbrev": False,
            },
        )
    except (ArgumentError, ParserError) as error:
        raise InputError(explain(error)) from None
    except MisconfigurationException as error:  # a device that is not there, and the like
        raise InputError(one_line(error)) from None
    except ValueError as error:  # the parser wraps what a constructor raised in a report of its own
        cause: BaseException | None = error
        while cause and not isinstance(cause, InputError):
            cause = cause.__cause__
        if "is not in bounds" in str(error):  # of Lightning, which names no key
            raise InputError(f"seed_everything {error}") from None
        raise cause or error from None


def _refuse_circles(needs: Sequence[str], above: tuple[str, ...] = ()) -> None:
    """Before a run waits for itself."""
    for need in needs:
        name = joined(layers(need))
        if name in above:
            raise InputError(f"needs: {' needs '.join((*above, name))}, which is a circle; take one of them out")
        _refuse_circles(needs_of(arguments(config_words(need))[1::2]), (*above, name))


def _is_news(record: logging.LogRecord) -> bool:
    return not record.getMessage().startswith(("💡", "Loading `train", "Restoring", "Loaded"))


def train(args: Sequence[str] | None = None) -> Path:
    """Trains, keeps the best checkpoint, tests it once, writes the run folder and returns it.

    An unfinished run in the folder (killed, or out of time) goes on from its last epoch; a finished one is not touched.
    Where another process trains into the folder, that is waited for. A run that was killed between its numbers and its
    report gets the report.
    """
    args = sys.argv[1:] if args is None else args
    cli = build(args, save=True)
    assert isinstance(cli.model, Module)
    if cli.model.exact_evaluation and cli.trainer.precision in ("bf16-true", "16-true"):
        raise InputError(
            f"trainer.precision {cli.trainer.precision}: scores would tie by the hundred, which costs ranks; take"
            f" {cli.trainer.precision.removesuffix('-true')}-mixed, whose evaluation is in float32"
        )
    assert isinstance(cli.datamodule, RecDataModule)
    refuse_empty_parts(cli.trainer, cli.model, cli.datamodule)
    run, first = Path(cli.config.run_dir), cli.trainer.is_global_zero
    may_wait = not cluster.others_wait(cli.trainer)
    with resume.claimed(run, may_wait) if first else contextlib.nullcontext(False) as waited:
        if waited:
            cli = build(args, save=True)  # again: the folder has a W&B run now
        if resume.is_finished(run, plain_config(cli, cli.config)):
            if waited:
                print(f"{run} was trained by the process that was waited for", file=sys.stderr)
                return run
            if not first:  # the first process says what there is to say
                return run
            if not (run / REPORT).exists():  # killed between its numbers and its end
                print(f"{run} is finished but for report.html and what W&B gets at the end", file=sys.stderr)
                print(f"{report_of_training(run)}; W&B gets no more", file=sys.stderr)
                return run
        resumed = resume.unfinished(run, plain_config(cli, cli.config))
        fit_and_test(
            cli.trainer, cli.model, cli.datamodule, _name(cli.config) or run.name,
            resumed or cli.config.ckpt_path, resumed is not None, cli.config.upload_checkpoint,
        )  # fmt: skip
        return run


def plain_config(cli: RunCLI, config: Any) -> dict[str, Any]:
    """A parsed config as config.yaml would hold it."""
    return dict(yaml.safe_load(cli.parser.dump(config, skip_none=False, skip_validation=True)))


def _name(config: Any) -> str:
    """What a run is called: its config, and those laid over it; empty without any."""
    return joined(config.get("config") or [])
