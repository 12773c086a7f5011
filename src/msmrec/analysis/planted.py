"""What was planted against what the gate found; for datasets whose truth is known, as `Simulated`'s is."""

import numpy as np
import polars as pl

from msmrec.columns import MODALITY, RAW_USER_ID

CLEAR = 0.5  # a group: users who give one modality at least half of their weight; a drift: a weight moves by as much


def rank_correlations(learned: pl.DataFrame, planted: pl.DataFrame) -> dict[str, float]:
    """Spearman correlation over users between learned and planted weights, modality by modality.

    Args:
        learned: from `people.weight_table`.
        planted: raw_user_id, modality, mean (the weight), as the simulator writes it.
    """
    from scipy.stats import spearmanr

    result = {}
    for (name,), group in planted.group_by(MODALITY, maintain_order=True):
        both = learned.join(group, on=RAW_USER_ID)
        result[str(name)] = float(spearmanr(both[str(name)], both["mean"]).statistic)
    return result


def within_user_correlation(learned: pl.DataFrame, planted: pl.DataFrame) -> float:
    """Mean over users of the rank correlation, over modalities, of learned and planted weights.

    Equal weights share the mean of their ranks; a user whose weights are all equal has no correlation.
    """
    from scipy.stats import rankdata

    wide = planted.pivot(MODALITY, index=RAW_USER_ID, values="mean")
    names = [name for name in wide.columns if name != RAW_USER_ID]
    both = learned.join(wide, on=RAW_USER_ID, suffix="_planted")
    a, b = (both.select(f"{name}{suffix}" for name in names).to_numpy() for suffix in ("", "_planted"))
    a, b = (rankdata(x, axis=1) - (len(names) + 1) / 2 for x in (a, b))
    size = np.sqrt((a**2).sum(1) * (b**2).sum(1))
    return float(((a * b).sum(1)[size > 0] / size[size > 0]).mean())


def found_groups(leanings: pl.DataFrame, planted: pl.DataFrame, clear: float = CLEAR) -> tuple[int, float]:
    """How many users have a planted group, and for which share of them the analysis finds it.

    A user's group is the modality with the largest mean planted weight, if that is at least `clear`. The analysis finds
    the modality in which the user stands out most from all users (the largest lift).

    Args:
        leanings: raw_user_id, modality, lift, from `people.leanings`.
        planted: raw_user_id, modality, mean.
    """
    both = planted.join(leanings, on=[RAW_USER_ID, MODALITY])
    users = both.group_by(RAW_USER_ID).agg(
        pl.col("mean").max(),
        found=pl.col(MODALITY).get(pl.col("lift").arg_max()) == pl.col(MODALITY).get(pl.col("mean").arg_max()),
    )
    asked = users.filter(pl.col("mean") >= clear)
    return len(asked), float(asked.select("found").mean().item() or 0.0)


def found_drift(leanings: pl.DataFrame, planted: pl.DataFrame, clear: float = CLEAR) -> tuple[int, float]:
    """How many users drift by plan, and for which share of them the analysis finds the direction.

    A user drifts if some modality's planted weight moves by at least `clear` from the first choice to the last; asked
    is whether the weight of the modality that moves most moves the same way from the first to the second half.

    Args:
        leanings: raw_user_id, modality, change, from `people.leanings`.
        planted: raw_user_id, modality, start, end.
    """
    moved = planted.with_columns(planned=pl.col("end") - pl.col("start"))
    most = moved.filter(pl.col("planned").abs() == pl.col("planned").abs().max().over(RAW_USER_ID))
    asked = most.unique(RAW_USER_ID, keep="first", maintain_order=True).filter(pl.col("planned").abs() >= clear)
    both = asked.join(leanings, on=[RAW_USER_ID, MODALITY])
    right = (both["change"].sign() == both["planned"].sign()).fill_null(False)
    return len(both), float(right.to_numpy().mean()) if len(both) else 0.0
