"""What Weights & Biases is told of a finished run beside its metrics: tables, artifacts, and which runs it builds on.

The run's files stay where they are: an artifact of an offline run refers to them until `wandb sync` takes them.
Artifacts are known by their content, so a run that names the vectors of its upstream run as its input is linked to the
run that made them, whichever of the two is synced first.
"""

import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl
import torch

from msmrec.analysis.gate import read_gate
from msmrec.analysis.people import weight_table
from msmrec.arguments import joined, overrides
from msmrec.artifacts import first_line
from msmrec.columns import ITEM_ID, MODALITY, RAW_USER_ID, TEST, TITLE, USER_ID
from msmrec.data.batches import EvalBatch
from msmrec.data.datamodule import RecDataModule
from msmrec.models.base import Module
from msmrec.models.click import ClickModule
from msmrec.models.msmrec import MSMRec
from msmrec.models.rec_module import RecModule
from msmrec.recommend.two_stage import TwoStage
from msmrec.run_folder import PLACES, folder_name, without_seed

if TYPE_CHECKING:
    from lightning.pytorch.loggers import WandbLogger
    from wandb import Artifact
    from wandb.sdk.wandb_run import Run

USERS = 20  # whose lists a table shows
ROWS = 200  # of the other tables
KINDS = {
    "results": ("config.yaml", "metrics.json"),
    "vectors": ("item_embeddings.safetensors",),
    "model": ("checkpoints/best.ckpt",),
}


def start_wandb(logger: "WandbLogger") -> None:
    """Starts W&B, offline where it cannot be reached: a compute node often has no way out, and the key lies at home."""
    import wandb
    from wandb.errors import CommError

    logger._wandb_init.pop("anonymous", None)  # W&B warns of Lightning's own None in every run
    try:
        logger.experiment  # noqa: B018 (made by being asked for, on the first process)
    except CommError as error:
        print(
            f"W&B is out of reach ({first_line(error)[:200]}); this run is logged offline, for wandb sync",
            file=sys.stderr,
        )
        wandb.teardown()  # it holds on to the id, which the offline run keeps
        logger._wandb_init["mode"] = "offline"
        logger.experiment  # noqa: B018


def track(run: "Run", folder: Path, model: Module, data: RecDataModule, upload_checkpoint: bool) -> None:
    """Logs the tables and artifacts of a run that has been tested, and what it builds on.

    Args:
        run: of the logger. folder: the run's. upload_checkpoint: whether checkpoints are artifacts too.
    """
    import wandb

    for name, table in tables(folder, model, data).items():
        run.log(
            {f"tables/{name}": wandb.Table(columns=[*table.columns], data=[list(row) for row in table.iter_rows()])}
        )
    for upstream in data.upstream.values():
        for artifact in artifacts(upstream, upload_checkpoint):
            if run.offline:
                # What use_artifact does with an artifact that is not on the server; offline it refuses, though the
                # record is one that sync understands.
                run._log_artifact(artifact, is_user_created=True, use_after_commit=True)
            else:
                run.use_artifact(artifact)
    for artifact in artifacts(folder, upload_checkpoint):
        run.log_artifact(artifact)


def artifacts(folder: Path, checkpoint: bool) -> "Iterator[Artifact]":
    """A run's results, vectors and, if asked for, best checkpoint; <name>-seed-<n>-<kind>, as far as they are there."""
    import wandb

    for kind, names in KINDS.items():
        there = [name for name in names if (folder / name).is_file()]
        if there and (checkpoint or kind != "model"):
            made = wandb.Artifact(re.sub(r"[^\w.-]", "-", f"{folder_name(folder)}-{kind}", flags=re.ASCII), type=kind)
            for name in there:
                made.add_file(str(folder / name), name, policy="immutable", skip_cache=True)
            yield made


def tables(folder: Path, model: Module, data: RecDataModule) -> dict[str, pl.DataFrame]:
    """What a run has to show: recommendations or predictions, prompts, gate weights."""
    found: dict[str, pl.DataFrame] = {}
    titles = data.dataset.items.select(pl.col(ITEM_ID).cast(pl.Int64), TITLE)
    users = data.dataset.users.select(pl.col(USER_ID).cast(pl.Int64), pl.col(RAW_USER_ID).cast(pl.String))
    if isinstance(model, RecModule):
        lists = _lists(model, next(iter(model.eval_loader(data, TEST))))
        found["recommendations"] = lists.join(users, on=USER_ID).join(titles, on=ITEM_ID, maintain_order="left")
    if isinstance(model, TwoStage):
        parts = [
            table.filter(pl.col(USER_ID).is_in(table[USER_ID].unique(maintain_order=True)[:USERS].implode()))
            .select(pl.lit(name).alias("variant"), pl.col(USER_ID, ITEM_ID).cast(pl.Int64), "place", "score")
            for name, table in model.lists.items()
        ]  # fmt: skip
        found["recommendations"] = pl.concat(parts).join(titles, on=ITEM_ID, how="left", maintain_order="left")
    if isinstance(model, ClickModule):
        shown = pl.DataFrame({name: value[:ROWS].cpu().numpy() for name, value in model.predictions.items()})
        shown = shown.with_columns(pl.col(USER_ID, ITEM_ID).cast(pl.Int64))
        found["predictions"] = shown.join(titles, on=ITEM_ID, how="left", maintain_order="left")
    if isinstance(model, MSMRec):
        weights = weight_table(read_gate(model, data.dataset), data.dataset).drop(USER_ID)
        weights = weights.with_columns(pl.col(RAW_USER_ID).cast(pl.String))
        names = [name for name in weights.columns if name != RAW_USER_ID]
        means = weights.select(names).mean().row(0)
        found["gate_weights"] = pl.DataFrame({MODALITY: names, "mean_over_users": means})
        found["gate_weights_of_users"] = weights.head(ROWS)
    epochs = sorted((folder / "prompts").glob("epoch=*.parquet"), key=lambda path: int(path.stem.partition("=")[2]))
    if epochs:
        prompts = pl.read_parquet(epochs[-1], columns=["row", USER_ID, ITEM_ID, "prompt"])
        found["prompts"] = prompts.filter(pl.col("prompt").is_not_null()).head(ROWS)
    return found


def _lists(model: RecModule, batch: EvalBatch) -> pl.DataFrame:
    """user_id, place, item_id, target (whether it is one): the first users' lists."""
    with torch.no_grad():
        model.eval()
        columns = model.evaluated(batch)
    top = columns[-1][:USERS].long().cpu()  # (U, K)
    target = batch.target_item[:USERS].long().cpu()
    hit = (top[:, :, None] == target[:, None, :]).any(2)
    user = columns[0][:USERS].long().cpu()[:, None].expand_as(top)
    place = torch.arange(1, top.shape[1] + 1).expand_as(top)
    parts: dict[str, Any] = {USER_ID: user, "place": place, ITEM_ID: top, "target": hit}
    return pl.DataFrame({name: part.flatten().numpy() for name, part in parts.items()}).filter(pl.col(ITEM_ID) > 0)


def place_in_wandb(config: Any, given: Sequence[str]) -> dict[str, Any]:
    """Group, name and tags of a W&B run: seeds of one line are a group, and tags say what an ablation changes."""
    folder = Path(config.run_dir)
    source = getattr(config.data.source, "class_path", "").rpartition(".")[2]
    changed = [
        f"{'.'.join(key.split('.')[-2:])}={value}".replace("init_args.", "")
        for key, value in overrides(given)
        if key.startswith(("model.", "data.")) and key not in PLACES
    ]
    parts = [joined([path]) for path in config.get("config") or []]
    tags = [*parts, config.model.class_path.rpartition(".")[2], source, *changed]
    tags = [tag[:64] for tag in dict.fromkeys(tags) if tag]
    return {"group": without_seed(folder)[:128], "name": folder_name(folder), "tags": tags}
