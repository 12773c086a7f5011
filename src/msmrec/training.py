"""A training from its first batch to what it leaves in its folder: fitted, tested on its best checkpoint, written."""

import os
import sys
from pathlib import Path
from typing import Any

from lightning import LightningModule, Trainer
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.utilities.exceptions import SIGTERMException

from msmrec.artifacts import InputError, one_line
from msmrec.data.datamodule import RecDataModule
from msmrec.models.base import Module
from msmrec.report.run_page import report_of_training
from msmrec.run_folder import load_safely
from msmrec.tracking import start_wandb, track
from msmrec.training_results import Clock, export_vectors, write_results


class Resumed(Callback):
    """What a run that goes on needs: its best checkpoint where the folder is now, and to stay stopped if it was.

    Lightning forgets the best score so far where the folder has another path than before, and would train a run that
    had been stopped early for an epoch and more.
    """

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Before the callbacks read their state: from the last checkpoint, and from the best one when it is tested."""
        here = str(trainer.checkpoint_callback.dirpath)  # type: ignore[union-attr]

        def moved(path: str) -> str:
            return os.path.join(here, os.path.basename(path)) if path else path

        for state in checkpoint["callbacks"].values():
            if "best_model_path" in state:
                state["dirpath"] = here
                for key in ("best_model_path", "kth_best_model_path", "last_model_path"):
                    state[key] = moved(state[key])
                state["best_k_models"] = {moved(path): score for path, score in state["best_k_models"].items()}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """After the checkpoint is restored."""
        trainer.should_stop |= any(one.stopped_epoch > 0 for one in trainer.early_stopping_callbacks)


def refuse_empty_parts(trainer: Trainer, model: Module, data: RecDataModule) -> None:
    """Before a training that could choose no checkpoint, or would have no test at its end.

    Raises:
        InputError: a part of the dataset that the run asks has no row.
    """
    info, protocol = data.dataset.info, data.protocol
    for part, rows, why in (
        ("test", info["num_test"], "every run ends with a test"),
        ("validation", info["num_val"] or not _trains(trainer, model), "it chooses the checkpoint"),
    ):
        if rows:
            continue
        ways = [f"data.protocol.ratios {list(protocol.ratios)} gives it no row, so raise its share"]
        if protocol.split == "leave_one_out":
            ways = ["data.protocol.split leave_one_out takes it from users with three ratings or more, so keep some"]
        if protocol.min_target_rating is not None:
            ways.append(f"lower data.protocol.min_target_rating {protocol.min_target_rating:g}")
        raise InputError(f"{info['name']}: the {part} part is empty, and {why}: {', or '.join(ways)}")


def _trains(trainer: Trainer, model: Module) -> bool:
    """Whether there is anything to train, and an epoch to train it in."""
    return model.trains and (trainer.max_epochs != 0 or bool(trainer.fast_dev_run))  # type: ignore[attr-defined]


def fit_and_test(
    trainer: Trainer, model: Module, data: RecDataModule, name: str, ckpt_path: str | None, resumed: bool, upload: bool
) -> None:
    """Trains, keeps the best checkpoint, tests it once, and writes `trainer.default_root_dir`.

    Args:
        name: of the config. ckpt_path: where to start from. resumed: whether that is this run's own last one.
        upload: whether W&B gets the best checkpoint.

    Raises:
        InputError: a metric to monitor that nobody logs, a checkpoint that does not fit, or none was kept.
        SystemExit: 143 after SIGTERM.
        KeyboardInterrupt: after Ctrl-C.
    """
    try:
        _fit_and_test(trainer, model, data, name, ckpt_path, resumed, upload)
    except MisconfigurationException as error:  # a metric to monitor that nobody logs, and the like
        raise InputError(one_line(error)) from None
    except SIGTERMException:  # a SystemExit with status 0, which would say that all is done
        print("msmrec: terminated; the same command goes on from the last finished epoch", file=sys.stderr)
        sys.exit(143)
    except SystemExit:  # Lightning's answer to Ctrl-C, with status 1, as if something had failed
        if trainer.interrupted:
            raise KeyboardInterrupt from None
        raise


def _fit_and_test(
    trainer: Trainer, model: Module, data: RecDataModule, name: str, ckpt_path: str | None, resumed: bool, upload: bool
) -> None:
    run = Path(trainer.default_root_dir)
    for logger in trainer.loggers:
        if isinstance(logger, WandbLogger):
            run.mkdir(parents=True, exist_ok=True)  # W&B starts from there when it looks for the commit that runs
            start_wandb(logger)
    clock = Clock()
    # A callback of its own at the end of every epoch, so that a resumed run starts with the next one: `save_last`
    # beside a monitor only saves when the monitor improves.
    last = ModelCheckpoint(run / "checkpoints", "last", save_on_train_epoch_end=True, enable_version_counter=False)
    trainer.callbacks += [clock, last, *([Resumed()] if resumed else [])]  # type: ignore[attr-defined]
    checkpointed: Any = {"datamodule": data, "weights_only": False}  # our own files, which hold plain state
    validates = data.dataset.info["num_val"] > 0
    if not _trains(trainer, model):
        evaluation = trainer.validate if validates else trainer.test
        # A model as it came, or as another run left it: nothing is trained.
        load_safely(ckpt_path, lambda: evaluation(model, ckpt_path=ckpt_path, verbose=False, **checkpointed))
        best = str(run / "checkpoints" / "best.ckpt")
        trainer.save_checkpoint(best)
    else:
        load_safely(ckpt_path, lambda: trainer.fit(model, ckpt_path=ckpt_path, **checkpointed))
        best = trainer.checkpoint_callback.best_model_path  # type: ignore[union-attr]
    if trainer.fast_dev_run:  # type: ignore[attr-defined]
        return
    if not best:
        raise InputError(f"{run}: no checkpoint was kept; validation never ran, so raise trainer.max_epochs")
    validated = dict(trainer.validate(model, ckpt_path=best, verbose=False, **checkpointed)[0]) if validates else {}
    tested = dict(trainer.test(model, ckpt_path=best, verbose=False, **checkpointed)[0])
    model.to(trainer.strategy.root_device)  # Lightning leaves a tested model on the CPU; what follows asks it
    if trainer.is_global_zero:
        model.save(run)
        export_vectors(run, model)
        write_results(run, model, data, name, validated, tested, clock)
        print(model.report(run, tested))
        print(report_of_training(run), file=sys.stderr)
    for logger in trainer.loggers:
        if isinstance(logger, WandbLogger):
            if trainer.is_global_zero:
                track(logger.experiment, run, model, data, upload)
            logger.experiment.finish()  # or the next training in this process would write into this one's W&B run
