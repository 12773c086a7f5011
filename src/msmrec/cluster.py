"""What a run does differently on a cluster: who requeues it, where its checkpoints are written, who trains upstream."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning import Trainer
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO

from msmrec.artifacts import InputError, atomic_file
from msmrec.command import train_in_child

# What tells a process that it is one of many.
_PLACE = ("SLURM_", "SRUN_", "PMI", "TORCHELASTIC_", "RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint beside its place and renames it.

    Lightning writes into the temporary folder, often on another disk, from where a move is a copy that a kill can cut.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        """Replaces `path` in one step."""
        with atomic_file(Path(path)) as temporary:
            super().save_checkpoint(checkpoint, temporary, storage_options)


def plugins(given: Any) -> list[Any]:
    """The Trainer's plugins: those of the config, and ours.

    Under SLURM, slurm/train.sbatch requeues and the run goes on from its last epoch. Lightning would requeue by itself
    from a checkpoint in the middle of an epoch, which no loader here can go on from, and train on meanwhile.
    """
    slurm = [SLURMEnvironment(auto_requeue=False)] if SLURMEnvironment.detect() else []
    return [*(given if isinstance(given, list) else [given] if given else []), AtomicCheckpointIO(), *slurm]


def is_one_of_many() -> bool:
    """Whether SLURM started this process as one of several that train together."""
    return int(os.environ.get("SLURM_NTASKS", 1)) > 1 and SLURMEnvironment.detect()


def others_wait(trainer: Trainer) -> bool:
    """Whether the other processes of a training were started with this one, and wait for it."""
    environment = getattr(trainer.strategy, "cluster_environment", None)
    return trainer.world_size > 1 and environment is not None and bool(environment.creates_processes_externally)


def train_alone(args: Sequence[str]) -> None:
    """Trains in a process that knows nothing of the others, which would otherwise be waited for.

    Raises:
        InputError: it failed; what it said stands above.
    """
    environment = {name: value for name, value in os.environ.items() if not name.startswith(_PLACE)}
    if status := train_in_child(args, env=environment):
        raise InputError(f"an upstream run failed (exit status {status}); its message stands above")
