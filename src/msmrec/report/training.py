"""The sections on a run's training: its curves, its speed and memory."""

from typing import Any

import polars as pl

from msmrec.report.figures import axis, line, number
from msmrec.report.page import Block, Figure, Missing, Prose, Row, Table
from msmrec.report.run_files import RunFiles

SHOWN = ("val/ndcg@10", "val/hit_rate@10", "val/auc", "val/user_auc", "val/log_loss", "val/ece", "val/recall@10")
MAX_POINTS = 1_000
UNITS = {"loss": "nats", "log_loss": "nats", "info_nce": "nats"}


def curve(logged: pl.DataFrame, metric: str) -> pl.DataFrame:
    """step and value of what was logged under a name; long curves are averaged over spans of steps."""
    found = logged.select("step", value=pl.col(metric)).drop_nulls()
    if len(found) <= MAX_POINTS:
        return found
    span = -(-len(found) // MAX_POINTS)
    return (
        found.group_by(pl.int_range(pl.len()) // span, maintain_order=True)
        .agg(pl.col("step").last(), pl.col("value").mean())
        .select("step", "value")
    )


def shown_curves(logged: pl.DataFrame) -> list[str]:
    """Names of the curves that say most, training's first."""
    training = [name for name in logged.columns if name.startswith("train/")]
    validation = [name for name in SHOWN if name in logged.columns]
    rest = [name for name in logged.columns if name.startswith("val/")]
    if "val/hit_rate@10" in validation and "val/recall@10" in validation:  # the same where a user has one target
        validation.remove("val/recall@10")
    return [n for n in training + (validation or rest[:4]) if logged[n].drop_nulls().len()]


def curve_axis(name: str) -> dict[str, Any]:
    """The vertical axis of a curve."""
    part, _, metric = name.partition("/")
    unit = f" ({UNITS[metric]})" if metric in UNITS else ""
    return axis(f"{ {'train': 'training', 'val': 'validation'}.get(part, part) } {metric.replace('_', ' ')}{unit}")


def training_curves(run: RunFiles) -> list[Block]:
    """Loss and validation metrics over steps."""
    logged = run.curves
    names = shown_curves(logged)
    if not names:
        raise Missing("csv/metrics.csv holds no curve: nothing was trained.")
    best = None
    if run.run.metrics is not None and (epoch := run.record.get("train", {}).get("best_epoch")) is not None:
        of_best = logged.filter((pl.col("epoch") == epoch) & pl.any_horizontal(pl.col("^val/.*$").is_not_null()))
        best = int(of_best["step"].to_numpy().max()) if len(of_best) else None
    figures = []
    for name in names:
        points = curve(logged, name)
        steps, values = points["step"].to_list(), points["value"].to_list()
        rule = [{"kind": "rule", "at": best}] if best is not None and name.startswith("val/") else []
        rows = [[number(s), number(float(v))] for s, v in points.gather_every(max(1, len(points) // 200)).iter_rows()]
        figures.append(
            Figure(
                name,
                [*rule, line(steps, values, "", 0 if name.startswith("train/") else 2)],
                axis("optimiser step"),
                curve_axis(name),
                f"{name} over {len(points)} points from step {steps[0]} to {steps[-1]}",
                Table(name, ["step", name], rows, frozenset({0, 1})),
                height=260,
            )
        )
    said = [f"{logged['epoch'].drop_nulls().n_unique():,} epochs"]
    said += [f"the best checkpoint, which was tested, is that of step {best:,} (dashed)"] if best is not None else []
    parts = len(list((run.folder / "csv").glob("metrics-*.csv")))
    said += [f"the run was resumed {parts} time{'s' * (parts > 1)}"] if parts else []
    return [Prose("; ".join(said).capitalize() + "."), Row(figures)]


def speed(run: RunFiles) -> list[Block]:
    """Seconds, tokens a second, memory, and what it ran on."""
    train = run.record.get("train") or {}
    if not train:
        raise Missing("metrics.json says nothing of the training; it was made by an older version.")
    words = {
        "device": ("device", ""),
        "threads": ("processor threads", ""),
        "precision": ("precision", ""),
        "seconds": ("whole run, tests included", " s"),
        "epochs": ("epochs", ""),
        "seconds_per_epoch": ("an epoch's training", " s"),
        "tokens_per_second": ("positions trained, padding included", " / s"),
        "peak_memory_mb": ("peak memory", " MB"),
        "parameters": ("parameters", ""),
    }
    rows = [
        [name, number(train[key], 1 if isinstance(train[key], float) else 0) + unit]
        for key, (name, unit) in words.items()
        if train.get(key) is not None
    ]
    files = [("checkpoints/best.ckpt", "best checkpoint"), ("item_embeddings.safetensors", "item vectors")]
    rows += [[name, f"{size / 2**20:,.1f} MB"] for path, name in files if (size := _size(run, path))]
    return [Table("Speed, memory and size", ["", ""], rows, frozenset({1}))]


def _size(run: RunFiles, path: str) -> int:
    return (run.folder / path).stat().st_size if (run.folder / path).is_file() else 0
