"""`python -m msmrec export`: a ranking model as a folder that needs no dataset, texts or run, and how it is read back.

    model.pt2                     torch.export: (item_seq, seq_len) -> scores; batch and length are dynamic
    model.onnx                    the same for ONNX runtimes, on request
    items.parquet                 item_id, raw_item_id, title, year, genres, count
    item_embeddings.safetensors   (N + 1, D) item vectors
    serving.json, README.md       sizes, checks, and a card for people

The seen filter is not in the graph: what a user has seen, genres, years and k are asked for with each request, and
whoever serves it keeps the whole history, of which the model reads only the latest items.
"""

import json
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from torch import Tensor, nn

from msmrec.artifacts import InputError, first_line, whole_folder, write_json
from msmrec.columns import COUNT, GENRES, ITEM_ID, RAW_ITEM_ID, TEST, TIER, TITLE, YEAR
from msmrec.data.batches import EvalBatch
from msmrec.data.sources.base import FileColumns
from msmrec.models.rec_module import RecModule, top_items, unseen_scores
from msmrec.run_folder import OpenRun
from msmrec.serving.rank import Histories, Recommender, dataset_histories, of_run
from msmrec.training_results import export_vectors

FORMAT = 2
CHECKED_USERS, CHECKED_ITEMS, TOLERANCE = 256, 10, 1e-4

Program = Callable[[Tensor, Tensor], Tensor]


class Ranking(nn.Module):
    """A model's scores as a function of histories alone.

    Args:
        model: serves new users.
    """

    def __init__(self, model: RecModule) -> None:
        super().__init__()
        self.model = model

    def forward(self, item_seq: Tensor, seq_len: Tensor) -> Tensor:
        """(B, N + 1) float32 scores of (B, L) items, oldest first, 0 on the right, of which (B,) are real."""
        nobody, nothing = torch.zeros_like(seq_len), item_seq[:0, 0]
        return self.model.scores(
            EvalBatch(nobody, item_seq, seq_len, item_seq[:, :0], nothing, nothing, nobody)
        ).float()


def of_export(folder: Path) -> Recommender:
    """The recommender of an exported folder, on the CPU.

    Raises:
        InputError: a file is missing or broken, or of another version.
    """
    try:
        about = json.loads((folder / "serving.json").read_text())
        items = pl.read_parquet(folder / "items.parquet")
        zipfile.ZipFile(folder / "model.pt2").close()  # torch says a page about what is none
        program = torch.export.load(folder / "model.pt2").module()
    except (OSError, ValueError, KeyError, RuntimeError, zipfile.BadZipFile, pl.exceptions.PolarsError) as error:
        raise InputError(f"{folder}: not a whole export ({first_line(error)[:160]}); export the run again") from None
    if about.get("format") != FORMAT:
        raise InputError(f"{folder}/serving.json: format {about.get('format')}, not {FORMAT}; export the run again")
    return Recommender(
        about["model"], lambda batch: program(batch.item_seq, batch.seq_len), items, about["max_seq_len"],
        about["batch_size"], torch.device("cpu"), ranks_cold_items=about["ranks_cold_items"], note=about["note"],
        columns=FileColumns(**about.get("columns", {})),
    )  # fmt: skip


def is_export(folder: Path) -> bool:
    """Whether the folder was written by `export`."""
    return (folder / "serving.json").is_file()


def export(run: OpenRun, out: Path, onnx: bool = False) -> dict[str, Any]:
    """Writes the folder, whole or not at all, after the exported model was checked against the checkpoint.

    Args:
        run: of a model that serves new users. out: does not exist yet. onnx: write model.onnx too.

    Returns:
        What serving.json holds.

    Raises:
        InputError: the model cannot be exported, `out` is there, ONNX's packages are not, or the check failed.
    """
    recommender = of_run(run)
    if not recommender.serves_new_users:
        raise InputError(
            f"{run.folder}: {recommender.name} knows the users of its training alone, which an export would not; its"
            " item and user vectors are in item_embeddings.safetensors"
        )
    assert isinstance(run.model, RecModule)
    model = run.model.to("cpu")
    refuse_existing(out)
    with whole_folder(out) as folder:
        recommender.items.select(ITEM_ID, RAW_ITEM_ID, TITLE, YEAR, GENRES, COUNT, TIER).write_parquet(
            folder / "items.parquet"
        )
        export_vectors(folder, model)
        ranking, probes = Ranking(model).eval(), _probes(run)
        trainer, model._trainer = model._trainer, None
        try:
            program = _traced(ranking, run.data.max_seq_len)
            torch.export.save(program, folder / "model.pt2")
            checks = {"model.pt2": _check(torch.export.load(folder / "model.pt2").module(), ranking, probes, run)}
            if onnx:
                checks["model.onnx"] = _check(_to_onnx(program, folder / "model.onnx"), ranking, probes, run)
        finally:
            model._trainer = trainer
        about = {
            "format": FORMAT, "model": recommender.name, "config": run.record["config"],
            "dataset": {key: run.record["dataset"][key] for key in ("name", "fingerprint", "num_items")},
            "max_seq_len": recommender.max_seq_len, "batch_size": recommender.batch_size, "note": recommender.note,
            "ranks_cold_items": recommender.ranks_cold_items,
            "columns": recommender.columns._asdict(),
            "checked": checks, "torch": torch.__version__,
        }  # fmt: skip
        write_json(folder / "serving.json", about)
        (folder / "README.md").write_text(_card(run, about))
    return about


def refuse_existing(out: Path) -> None:
    """Refuses to export over what is there.

    Raises:
        InputError: `out` is there already.
    """
    if out.exists():
        raise InputError(f"{out}: already there; remove it, or give another --out")


def _traced(ranking: Ranking, max_seq_len: int) -> torch.export.ExportedProgram:
    length = min(3, max_seq_len)
    example = (torch.ones(2, length, dtype=torch.long), torch.tensor([length, 1]))
    batch, positions = torch.export.Dim("batch", min=1), torch.export.Dim("length", min=1, max=max_seq_len)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return torch.export.export(ranking, example, dynamic_shapes=({0: batch, 1: positions}, {0: batch}))
        except RuntimeError as error:  # of a user's own class
            raise InputError(
                f"{type(ranking.model).__name__}.scores cannot be exported for any number of users and any length"
                f" ({first_line(error)}); take sizes from tensor.shape, not from len() or as numbers"
            ) from None


def _to_onnx(program: torch.export.ExportedProgram, path: Path) -> Program:
    """Writes the ONNX file and returns it as a function."""
    try:
        import onnxruntime
        import onnxscript  # noqa: F401 (torch.onnx needs it)
    except ImportError:
        raise InputError("--onnx needs onnxscript and onnxruntime: pip install 'msmrec[onnx]'") from None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            program, (), path, input_names=["item_seq", "seq_len"], output_names=["scores"], dynamo=True,
            external_data=False, verbose=False,
        )  # fmt: skip
    session = onnxruntime.InferenceSession(path)
    return lambda seq, size: torch.from_numpy(
        session.run(None, {"item_seq": seq.numpy(), "seq_len": size.numpy()})[0].copy()
    )


def _probes(run: OpenRun) -> list[EvalBatch]:
    """Histories of users, evenly drawn, in batches of several sizes and lengths, and one of a single item."""
    dataset = run.data.dataset
    users = np.flatnonzero(dataset.ends[TEST] > dataset.offsets[:-1])
    some = users[np.unique(np.linspace(0, len(users) - 1, CHECKED_USERS).round().astype(np.int64))]
    histories = dataset_histories(dataset, some)
    histories = histories._replace(user=np.zeros_like(histories.user))  # nobody's: that is what an export knows
    one = Histories(histories.items[:1], np.zeros(1, np.int64), np.zeros(1, np.int64), np.ones(1, np.int64))
    cpu = torch.device("cpu")
    return [batch for part in (histories, one) for batch in part.loader(run.data.max_seq_len, 100, cpu)]


def _check(program: Program, ranking: Ranking, probes: list[EvalBatch], run: OpenRun) -> dict[str, float]:
    """Largest difference of scores, and the share of users with the same first items.

    Raises:
        InputError: it differs by more than rounding.
    """
    worst, scale, same, users = 0.0, 1.0, 0, 0
    k = min(CHECKED_ITEMS, run.data.num_items)
    for batch in probes:
        with torch.no_grad():
            both = [unseen_scores(of(batch.item_seq, batch.seq_len), batch) for of in (ranking, program)]
        real = both[0].isfinite()
        if not torch.equal(real, both[1].isfinite()):
            raise InputError(f"{run.folder}: the exported model bars other items than the checkpoint; not exported")
        worst = max(worst, float((both[0] - both[1])[real].abs().max()))
        scale = max(scale, float(both[0][real].abs().max()))
        lists = [top_items(scores, k)[1] for scores in both]
        same, users = same + int((lists[0] == lists[1]).all(1).sum()), users + len(lists[0])
    if worst > TOLERANCE * scale or same < 0.99 * users:
        raise InputError(
            f"{run.folder}: the exported model's scores differ from the checkpoint's by up to {worst:.2g}, and"
            f" {users - same} of {users} lists differ; not exported"
        )
    return {"users": users, "largest_difference": worst, f"same_top_{k}": same / users}


def _card(run: OpenRun, about: dict[str, Any]) -> str:
    """README.md of the folder."""
    record, data = run.record, run.record["dataset"]
    metrics = "\n".join(
        f"| {name} | {record['test'][name]:.4f} |" for name in run.model.headline if name in record["test"]
    )
    checks = "\n".join(
        f"* `{file}`: " + ", ".join(f"{name.replace('_', ' ')} {value:.3g}" for name, value in check.items())
        for file, check in about["checked"].items()
    )
    protocol = ", ".join(f"{name} {value}" for name, value in record["protocol"].items() if value is not None)
    return f"""# {about["model"]} ({about["config"]}), exported for ranking

Trained on {data["name"]} (fingerprint {data["fingerprint"]}; {data["num_users"]:,} users, {data["num_items"]:,} items,
{data["num_interactions"]:,} interactions). It orders the catalogue for a history, and knows no user by name.

| test metric | |
|---|---|
{metrics}

Protocol: {protocol}.

## Use

    python -m msmrec recommend --run . --history histories.csv --k 10

or without this package:

    program = torch.export.load("model.pt2").module()
    scores = program(item_seq, seq_len)    # (B, L) int64 and (B,) int64 -> (B, N + 1) float32

`item_seq` holds `item_id`s of `items.parquet`, oldest first, at most {about["max_seq_len"]} (the latest), then 0;
`seq_len` how many are real, at least 1. Column 0 of the scores is the padding. What the user has seen is not taken
out: set these columns, and column 0, to -inf before ranking. {about["note"]}

## Checked against the checkpoint

{checks}

## Limits

Its lists follow what was watched and rated in its data, popular and older items included. Items that are not in
`items.parquet` are unknown to it. It was tested offline, as above, and on no live traffic.
"""
