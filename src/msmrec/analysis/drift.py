"""How a user's weights move along the history: by twentieths, and from its first half to its second.

The paper compares the history cut off at half with the whole of it. The whole holds the first half again, which hides
half of any change, so here the halves are held against each other, in hindsight (see `gate.py`).
"""

import numpy as np
import polars as pl
from numpy.typing import NDArray

from msmrec.analysis.gate import Gate
from msmrec.analysis.measured import Measured, means
from msmrec.columns import ITEM_ID, MODALITY, TITLE
from msmrec.data.prepare import Dataset
from msmrec.evaluation.statistics import Means, holm

STEPS = 20
HALVES = ("first", "second")
TURNED = 0.1  # share of the users that have turned to a modality most, and away from it most
PRIOR = 5  # ratings of each item that follow the general trend, added to what is counted, so that rare items stay low


def positions(gate: Gate) -> Means:
    """Mean weights (20, M) of the user after each twentieth of the history; short histories repeat some places."""
    done = np.arange(1, STEPS + 1) * gate.lengths[:, None]
    after = gate.after[gate.offsets[:-1, None] + -(-done // STEPS) - 1]  # (U, 20, M)
    return means(after, after.sum(2, keepdims=True) > 0)


def position_table(gate: Gate, measured: Measured) -> pl.DataFrame:
    """position (0 to 19), modality, mean, low, high, of `positions`."""
    steps = np.repeat(np.arange(STEPS), len(gate.names))
    columns = {"position": steps, MODALITY: gate.names * STEPS, "mean": measured.value.ravel()}
    return pl.DataFrame(columns | measured.interval())


def halves(gate: Gate) -> Means:
    """Mean weights (2, M) in the first and in the second half, of users who have texts in both."""
    return means(gate.halves.swapaxes(0, 1), gate.has_halves[:, None, None])


def drift_table(gate: Gate, measured: Measured) -> pl.DataFrame:
    """modality, first, second, difference (second - first), low, high, p (Holm over the table), of `halves`."""
    first, second = measured.at(0), measured.at(1)
    change = second.minus(first)
    columns = {MODALITY: gate.names, "first": first.value, "second": second.value, "difference": change.value}
    return pl.DataFrame(columns | change.interval() | {"p": holm(change.p())})


def drift_items(gate: Gate, dataset: Dataset, top: int = 10) -> pl.DataFrame:
    """The items that go with a change: for each modality and half, those that stand in this half more than expected.

    Asked are the tenth of the users whose weight rose most, about their second half, and the tenth whose weight fell
    most, about their first. An item's lift is how many of their choices of it fall into that half, over how many would
    if they followed all users' trend: (count + 5) / (expected + 5).

    Returns:
        modality, half, item_id, title, lift: `top` items each, the largest lift first.
    """
    change, both = gate.halves[1] - gate.halves[0], gate.has_halves
    in_second, owner = gate.in_second, gate.owner
    everyone = _by_half(gate.item_id, in_second, dataset.num_items)
    trend = everyone / np.maximum(everyone.sum(0), 1)
    asked = np.flatnonzero(both)
    few = max(1, round(TURNED * len(asked)))
    parts = []
    for k, name in enumerate(gate.names):
        order = asked[np.argsort(change[asked, k], kind="stable")]
        for half, turned in enumerate((order[:few], order[::-1][:few])):
            theirs = np.isin(owner, turned)
            counts = _by_half(gate.item_id[theirs], in_second[theirs], dataset.num_items)
            lift = (counts[half] + PRIOR) / (counts.sum(0) * trend[half] + PRIOR)
            best = np.argsort(-lift[1:], kind="stable")[:top] + 1
            parts.append(
                pl.DataFrame({ITEM_ID: best.astype(np.int32), "lift": lift[best]}).select(
                    pl.lit(name).alias(MODALITY), pl.lit(HALVES[half]).alias("half"), ITEM_ID, "lift"
                )
            )
    titled = pl.concat(parts).join(dataset.items.select(ITEM_ID, TITLE), on=ITEM_ID, how="left", maintain_order="left")
    return titled.select(MODALITY, "half", ITEM_ID, TITLE, "lift")


def _by_half(item_id: NDArray[np.int32], in_second: NDArray[np.bool_], num_items: int) -> NDArray[np.int64]:
    """(2, N + 1) how often each item stands in first and in second halves."""
    code = item_id + (num_items + 1) * in_second
    return np.bincount(code, minlength=2 * (num_items + 1)).reshape(2, -1)
