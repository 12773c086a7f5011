"""Blockbuster, Diverse and Niche users (MSMRec paper, section 5.4), and what their gates weigh.

Popular items are those with more than a share lambda of all training interactions. The users' shares of popular items
in their histories, from the largest to the smallest, are cut into three intervals of equal width: Blockbuster, Diverse,
Niche. The paper names no lambda; by default an item is popular from twice its equal part (lambda = 2 / N).
"""

from itertools import combinations

import numpy as np
import polars as pl
from numpy.typing import NDArray

from msmrec.analysis.gate import Gate
from msmrec.analysis.measured import Measured, means
from msmrec.artifacts import InputError
from msmrec.columns import COUNT, MODALITY
from msmrec.data.prepare import Dataset
from msmrec.evaluation.statistics import Array, Means, holm

GROUPS = ("Blockbuster", "Diverse", "Niche")
FEW = 30  # a smaller group has no interval and no test: some resamples of all users would hold nobody of it


def popular_items(dataset: Dataset, above: float | None) -> NDArray[np.bool_]:
    """(N + 1,) whether an item has more than the share `above` of all training interactions.

    Args:
        above: lambda; None is 2 / N.

    Raises:
        InputError: no item has, or all have.
    """
    count = np.concatenate([[0], dataset.items[COUNT].to_numpy()])
    share = count / count.sum()
    limit = 2 / dataset.num_items if above is None else above
    popular: NDArray[np.bool_] = share > limit
    if not popular.any():
        raise InputError(f"popular_above {limit:g}: no item is popular; the most popular one has {share.max():.2g}")
    if popular[1:].all():
        raise InputError(f"popular_above {limit:g}: every item is popular; the least popular has {share[1:].min():.2g}")
    return popular


def popular_shares(gate: Gate, popular: NDArray[np.bool_]) -> Array:
    """(U,) share of popular items in each history."""
    return np.add.reduceat(popular[gate.item_id].astype(np.float64), gate.offsets[:-1]) / gate.lengths


def equal_width_groups(share: Array) -> NDArray[np.int64]:
    """(U,) places in GROUPS; where all shares are the same, all users are Diverse."""
    width = (share.max() - share.min()) / len(GROUPS)
    if width == 0:
        return np.ones(len(share), np.int64)
    group: NDArray[np.int64] = np.minimum(((share.max() - share) / width).astype(np.int64), len(GROUPS) - 1)
    return group


def entropy(weights: NDArray[np.float32]) -> Array:
    """(U,) of the weights (U, M), over its largest value log M: 0 all on one modality, 1 all alike."""
    w = weights.astype(np.float64)
    logs = np.log(w, out=np.zeros_like(w), where=w > 0)
    # float32 weights sum to 1 only about
    share: Array = np.clip(-(w * logs).sum(1) / np.log(max(w.shape[1], 2)), 0, 1)
    return share


def group_means(gate: Gate, group: NDArray[np.int64]) -> Means:
    """Mean weight (G, M) of each modality in each group; G: the groups of at least FEW users, in order."""
    member = group[:, None] == large_groups(group)  # (U, G)
    values = np.repeat(gate.users[:, None], member.shape[1], axis=1)
    return means(values, (member & gate.has_text[:, None])[:, :, None])


def large_groups(group: NDArray[np.int64]) -> NDArray[np.int64]:
    """The groups, as places in GROUPS, that have enough users to be tested."""
    return np.flatnonzero(np.bincount(group, minlength=len(GROUPS)) >= FEW)


def group_tables(gate: Gate, group: NDArray[np.int64], measured: Measured) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The tables `groups` and `group_tests`.

    Args:
        measured: of `group_means`.

    Returns:
        group, modality, users, mean, low, high: groups without users are left out, groups of fewer than FEW have no
        interval; and modality, group_a, group_b, difference (a - b), low, high, p (Holm over the whole table).
    """
    large = large_groups(group)
    place = {int(g): k for k, g in enumerate(large)}
    parts = []
    for g, name in enumerate(GROUPS):
        members = group == g
        if not members.any():
            continue
        if g in place:
            of_group = measured.at(place[g])
            columns = {"mean": of_group.value, **of_group.interval()}
        else:
            nothing = np.full(len(gate.names), np.nan)
            columns = {"mean": gate.users[members].mean(0, dtype=np.float64), "low": nothing, "high": nothing}
        parts.append(
            pl.DataFrame({"group": name, MODALITY: gate.names, "users": int(members.sum()), **columns})
        )  # fmt: skip
    tests = []
    for a, b in combinations(range(len(large)), 2):
        gap = measured.at(a).minus(measured.at(b))
        tests.append(
            pl.DataFrame({MODALITY: gate.names, "difference": gap.value, **gap.interval(), "p": gap.p()}).select(
                MODALITY, pl.lit(GROUPS[large[a]]).alias("group_a"), pl.lit(GROUPS[large[b]]).alias("group_b"),
                pl.exclude(MODALITY),
            )
        )  # fmt: skip
    tested = pl.concat(tests) if tests else pl.DataFrame(schema=TESTS)
    return pl.concat(parts).fill_nan(None), tested.with_columns(p=holm(tested["p"]))


TESTS = {MODALITY: pl.String, "group_a": pl.String, "group_b": pl.String} | dict.fromkeys(
    ("difference", "low", "high", "p"), pl.Float64
)
