"""What the gate learned: how much each user attends to each modality."""

from collections.abc import Iterable

import numpy as np
import polars as pl
import torch

from msmrec.columns import MODALITY, RAW_USER_ID, USER_ID
from msmrec.data.batches import EvalBatch
from msmrec.data.prepare import Dataset
from msmrec.models.msmrec import MSMRec


def user_weights(model: MSMRec, batches: Iterable[EvalBatch], dataset: Dataset) -> pl.DataFrame:
    """The gate's weights at the end of each user's history.

    Returns:
        user_id, raw_user_id and a column for each modality (float32; they sum to 1).
    """
    names = [modality.name for modality in model.text.modalities]
    users, weights = [], []
    model.eval()
    with torch.no_grad():
        for batch in batches:
            _, gate = model.gate_weights(batch.item_seq, batch.seq_len)
            rows = torch.arange(len(gate), device=gate.device)
            users.append(batch.user_id.cpu())
            weights.append(gate[rows, batch.seq_len - 1].float().cpu())
    table = pl.DataFrame(torch.cat(weights).numpy(), schema=names).with_columns(
        pl.Series(USER_ID, torch.cat(users).numpy(), pl.Int32)
    )
    return table.join(dataset.users.select(USER_ID, RAW_USER_ID), on=USER_ID).sort(USER_ID)


def rank_correlations(learned: pl.DataFrame, planted: pl.DataFrame) -> dict[str, float]:
    """Spearman correlation over users between learned and planted weights, modality by modality.

    Args:
        learned: from `user_weights`.
        planted: raw_user_id, modality, mean (the weight), as the simulator writes it.
    """
    from scipy.stats import spearmanr

    result = {}
    for (name,), group in planted.group_by(MODALITY, maintain_order=True):
        both = learned.join(group, on=RAW_USER_ID)
        result[str(name)] = float(spearmanr(both[str(name)], both["mean"]).statistic)
    return result


def within_user_correlation(learned: pl.DataFrame, planted: pl.DataFrame) -> float:
    """Mean over users of the rank correlation, over modalities, of learned and planted weights."""
    wide = planted.pivot(MODALITY, index=RAW_USER_ID, values="mean")
    names = [name for name in wide.columns if name != RAW_USER_ID]
    both = learned.join(wide, on=RAW_USER_ID, suffix="_planted")
    a, b = (both.select(f"{name}{suffix}" for name in names).to_numpy() for suffix in ("", "_planted"))
    a, b = (np.argsort(np.argsort(x, 1), 1) - (len(names) - 1) / 2 for x in (a, b))
    return float(((a * b).sum(1) / np.sqrt((a**2).sum(1) * (b**2).sum(1))).mean())
