"""The sections on a click model: whether its probabilities can be taken at their word, and for whom it works."""

import numpy as np
import polars as pl
import torch

from msmrec.columns import ITEM_ID, TIER, USER_ID
from msmrec.metrics.beyond_accuracy import TIERS
from msmrec.metrics.ctr import ctr_metrics, user_auc
from msmrec.report.figures import axis, intervals, line, number, span
from msmrec.report.page import Block, Figure, Prose, Row, Table
from msmrec.report.run_files import RunFiles

BINS = 15  # as the metric ece


def reliability(label: np.ndarray, prob: np.ndarray) -> pl.DataFrame:
    """Samples in bins of equal width by probability.

    Args:
        label: (S,) 0 or 1. prob: (S,).

    Returns:
        bin, samples, prob (their mean), clicked (the share of clicks), low, high (Wilson's 95% interval of it); bins
        without samples are left out.
    """
    table = pl.DataFrame({"bin": np.minimum((prob * BINS).astype(int), BINS - 1), "label": label, "prob": prob})
    bins = (
        table.group_by("bin")
        .agg(samples=pl.len(), prob=pl.col("prob").mean(), clicked=pl.col("label").mean())
        .sort("bin")
    )
    n, p, z = bins["samples"].to_numpy().astype(float), bins["clicked"].to_numpy(), 1.96
    centre, half = p + z**2 / (2 * n), z * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    return bins.with_columns(low=(centre - half) / (1 + z**2 / n), high=(centre + half) / (1 + z**2 / n))


def _metrics(table: pl.DataFrame) -> dict[str, float]:
    """`ctr_metrics` of predictions."""
    prob, label, user = (table[name].to_torch() for name in ("prob", "label", USER_ID))
    return ctr_metrics(prob.double(), label, user_auc(prob, label, user), torch.tensor(0.5))


def calibration(run: RunFiles) -> list[Block]:
    """Reliability diagram, ECE, AUC, and how probabilities are spread."""
    table = run.table("predictions.parquet", "it was not made by a click model")
    label, prob = table["label"].to_numpy(), table["prob"].to_numpy().astype(float)
    measured = _metrics(table)
    said = f"Over all {len(table):,} test samples: expected calibration error {measured['ece']:.4f} ({BINS} bins),"
    said += f" AUC {number(measured['auc'])}, {label.mean():.1%} clicked; mean probability {prob.mean():.1%}."
    return [Prose(said), Row([_diagram(reliability(label, prob)), _spread(label, prob)])]


def _diagram(bins: pl.DataFrame) -> Figure:
    """Share of clicks against probability, from what `reliability` returns."""
    diagonal = line([0, 1], [0, 1], "as it should be", 7, markers=False)
    wanted = [bins[name].to_list() for name in ("prob", "clicked", "low", "high", "samples")]
    at, clicked, low, high, _ = wanted
    hover = [
        f"said {p:.3f}, clicked {c:.3f} ({span(a, b, 3)})\n{n:,} samples" for p, c, a, b, n in zip(*wanted, strict=True)
    ]
    dotted = {
        **intervals(hover, clicked, low, high, "measured", 0, hover=hover),
        "upright": True,
        "x": at,
        "y": clicked,
    }
    rows = [
        [f"{k / BINS:.3f} to {(k + 1) / BINS:.3f}", number(n), number(p), number(c), span(a, b)]
        for k, n, p, c, a, b in bins.select("bin", "samples", "prob", "clicked", "low", "high").iter_rows()
    ]
    numbers = Table(
        "Reliability",
        ["probability", "samples", "mean probability", "share of clicks", "95% interval"],
        rows,
        frozenset({1, 2, 3, 4}),
    )
    return Figure(
        "Calibration",
        [diagonal, dotted],
        axis("predicted probability of a click", range=[0, 1]),
        axis("share of clicks", range=[0, 1]),
        "Share of clicks against predicted probability in fifteen bins",
        numbers,
        "A point on the line: of samples with this probability as many were clicked. Bars: 95% intervals (Wilson).",
        340,
    )


def _spread(label: np.ndarray, prob: np.ndarray) -> Figure:
    """Histograms of the probabilities of (S,) clicked and other samples."""
    edges = np.linspace(0, 1, 41)
    bars = []
    for k, (name, value) in enumerate((("clicked", 1), ("not clicked", 0))):
        counts = np.histogram(prob[label == value], edges)[0]
        bars.append(
            {
                "kind": "bars",
                "left": edges[:-1].tolist(),
                "right": edges[1:].tolist(),
                "top": counts.tolist(),
                "series": k,
                "name": name,
                "alpha": 0.5,
                "hover": [
                    f"{name}, {a:.3f} to {b:.3f}: {c:,}" for a, b, c in zip(edges[:-1], edges[1:], counts, strict=True)
                ],
            }
        )
    return Figure(
        "Probabilities of clicked and other samples",
        bars,
        axis("predicted probability of a click", range=[0, 1]),
        axis("samples", zero=True),
        "Histograms of the probabilities of clicked and other samples",
        height=340,
    )


def click_slices(run: RunFiles) -> list[Block]:
    """AUC, log loss and calibration by tier of the item and activity of the user."""
    table = run.table("predictions.parquet", "it was not made by a click model")
    table = table.with_columns(pl.Series("activity", run.dataset.train_lengths[table[USER_ID].to_numpy()]))
    table = table.join(run.dataset.items.select(ITEM_ID, TIER), on=ITEM_ID, how="left", maintain_order="left")
    known = table.filter(pl.col("activity") > 0).unique(USER_ID)["activity"]
    low, high = (int(known.quantile(share) or 0) for share in (1 / 3, 2 / 3))
    count = pl.col("activity")
    slices = {
        "all": pl.lit(True),
        **{f"item: {tier}": pl.col(TIER) == tier for tier in TIERS},
        "user: without training ratings": count == 0,
        f"user: 1 to {low} training ratings": (count > 0) & (count <= low),
        f"user: up to {high}": (count > low) & (count <= high),
        f"user: over {high}": count > high,
    }
    body = []
    for name, inside in slices.items():
        part = table.filter(inside)
        if not len(part):
            continue
        measured = _metrics(part)
        body.append(
            [
                name,
                number(len(part)),
                number(part[USER_ID].n_unique()),
                *(number(measured[metric]) for metric in ("auc", "log_loss", "ece")),
                f"{measured['click_rate']:.1%}",
            ]
        )
    columns = ["slice", "samples", "users", "AUC", "log loss (nats)", "ECE", "clicked"]
    return [Table("Slices of the test samples", columns, body, frozenset(range(1, 7)))]
