"""What a modality is worth to the recommendations: the test metrics of a trained model that may not look at it.

A removed modality counts as missing for every item (`MSMRec.present`), so it takes no weight in the history, in the
keys or in the user's gate, and the others share what it had. The model is not trained again: this is what it has
learned to lean on, not what a model without the modality could reach.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import polars as pl
import torch

from msmrec.analysis.gate import Gate
from msmrec.analysis.measured import Measured, means
from msmrec.columns import MODALITY, TEST
from msmrec.evaluation.statistics import Array, Means, holm
from msmrec.metrics.ranking import ranking_metrics
from msmrec.models.msmrec import MSMRec
from msmrec.run_folder import OpenRun

METRICS = ("hit_rate@10", "ndcg@10")
ALL = "all texts"


@contextmanager
def without(model: MSMRec, modalities: Sequence[int]) -> Iterator[None]:
    """Hides some modalities, by their places, from the model as long as the block lasts."""
    before = model.present.clone()
    try:
        model.present[:, list(modalities)] = False
        yield
    finally:
        model.present.copy_(before)


def removals(run: OpenRun, model: MSMRec, gate: Gate) -> Means:
    """Test metrics (M + 2, 2): of the whole model, without each modality, and without any; columns as in METRICS.

    Over the users that have test items.
    """
    each = range(len(gate.names))
    hidden: list[Sequence[int]] = [(), *((k,) for k in each), tuple(each)]
    values = np.full((len(gate.user_id), len(hidden), len(METRICS)), np.nan)
    for column, modalities in enumerate(hidden):
        with without(model, modalities):
            users, metrics = target_metrics(run, model)
        values[np.searchsorted(gate.user_id, users), column] = metrics
    tested = ~np.isnan(values).any((1, 2))
    return means(np.nan_to_num(values), tested[:, None, None])


def target_metrics(run: OpenRun, model: MSMRec) -> tuple[Array, Array]:
    """(U,) test users and (U, 2) their METRICS, ranked among all items as in the test of a run."""
    users, parts = [], []
    with torch.inference_mode():
        for batch in model.eval_loader(run.data, TEST):
            user, ranks, counts, *_ = model.evaluated(batch)
            metrics = ranking_metrics(ranks, counts, (10,))
            users.append(user.cpu())
            parts.append(torch.stack([metrics[name] for name in METRICS], 1).double().cpu())
    return torch.cat(users).numpy(), torch.cat(parts).numpy()


def removal_table(gate: Gate, measured: Measured) -> pl.DataFrame:
    """modality, metric, full, without, difference (without - full), low, high, p (Holm over the table).

    Args:
        measured: of `removals`. The last modality is "all texts".
    """
    names, parts = [*gate.names, ALL], []
    for k, name in enumerate(names):
        change = measured.at(k + 1).minus(measured.at(0))
        columns = {"full": measured.value[0], "without": measured.value[k + 1], "difference": change.value}
        table = pl.DataFrame({"metric": METRICS, **columns, **change.interval(), "p": change.p()})
        parts.append(table.select(pl.lit(name).alias(MODALITY), pl.all()))
    table = pl.concat(parts)
    return table.with_columns(p=holm(table["p"]))
