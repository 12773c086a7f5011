"""Tables of single users and items: how the gate weighs the modalities for each."""

import numpy as np
import polars as pl
from numpy.typing import NDArray

from msmrec.analysis.gate import Gate
from msmrec.analysis.groups import GROUPS, entropy
from msmrec.columns import ITEM_ID, MODALITY, RATING, RAW_ITEM_ID, RAW_USER_ID, TITLE, USER_ID
from msmrec.data.prepare import Dataset
from msmrec.evaluation.statistics import Array

DEVOTED, FILMS = 5, 5  # users of each modality, and films of each of them


def weight_table(gate: Gate, dataset: Dataset) -> pl.DataFrame:
    """user_id, raw_user_id and a column for each modality: the weights that the model recommends with (sum 1)."""
    ids = pl.DataFrame({USER_ID: gate.user_id.astype(np.int32)})
    named = ids.join(dataset.users.select(USER_ID, RAW_USER_ID), on=USER_ID, how="left", maintain_order="left")
    return named.hstack(pl.DataFrame(gate.users, schema=gate.names))


def user_table(gate: Gate, dataset: Dataset, share: Array, group: NDArray[np.int64]) -> pl.DataFrame:
    """user_id, raw_user_id, group, popular_share, num_items, entropy, and a column for each modality.

    The entropy is null for users without any text in their history, whose weights are 0.
    """
    of_user = {
        "group": np.array(GROUPS)[group],
        "popular_share": share,
        "num_items": gate.lengths,
        "entropy": pl.Series(np.where(gate.has_text, entropy(gate.users), np.nan)).fill_nan(None),
    }
    weights = weight_table(gate, dataset)
    return weights.select(USER_ID, RAW_USER_ID).hstack(pl.DataFrame(of_user)).hstack(weights.select(gate.names))


def leanings(gate: Gate, dataset: Dataset) -> pl.DataFrame:
    """Where users stand out, in hindsight: user_id, raw_user_id, modality, lift, change.

    The lift is the user's weight over the mean user's: above 1 the user leans to the modality more than others do. The
    change is the weight in the second half of the history less that in the first; null where a half has no text.
    """
    mean = gate.whole.mean(0)
    lift = np.divide(gate.whole, mean, out=np.zeros_like(gate.whole), where=mean > 0)
    change = np.where(gate.has_halves[:, None], gate.halves[1] - gate.halves[0], np.nan)
    ids = weight_table(gate, dataset).select(USER_ID, RAW_USER_ID)
    return ids[np.repeat(np.arange(len(ids)), len(gate.names))].with_columns(
        pl.Series(MODALITY, gate.names * len(ids)),
        pl.Series("lift", lift.ravel()),
        pl.Series("change", change.ravel()).fill_nan(None),
    )


def item_table(gate: Gate, dataset: Dataset) -> pl.DataFrame:
    """item_id, raw_item_id, title, count (places in histories), and a column for each modality.

    The weights are the item's mean over all places where it stands; items that stand nowhere are left out.
    """
    size = dataset.num_items + 1
    count = np.bincount(gate.item_id, minlength=size)
    there = np.flatnonzero(count)
    sums = np.stack([np.bincount(gate.item_id, weights, size) for weights in gate.items.T], 1)
    table = pl.DataFrame({ITEM_ID: there.astype(np.int32), "count": count[there]})
    names = dataset.items.select(ITEM_ID, RAW_ITEM_ID, TITLE)
    table = table.join(names, on=ITEM_ID, how="left", maintain_order="left")
    means = pl.DataFrame((sums[there] / count[there, None]).astype(np.float32), schema=gate.names)
    return table.select(ITEM_ID, RAW_ITEM_ID, TITLE, "count").hstack(means)


def devoted(gate: Gate, dataset: Dataset) -> pl.DataFrame:
    """The users with the largest weight on each modality, and the films that they rated best.

    Of films that a user rated alike, those come first on which the gate puts most of this modality.

    Returns:
        modality, rank (from 1), user_id, raw_user_id, weight, titles (list).
    """
    raw = dict(dataset.users.select(USER_ID, RAW_USER_ID).iter_rows())
    ratings, titles = dataset.column(RATING), dataset.items[TITLE]
    rows = []
    for k, name in enumerate(gate.names):
        for rank, user in enumerate(np.argsort(-gate.users[:, k], kind="stable")[:DEVOTED]):
            places = slice(gate.offsets[user], gate.offsets[user + 1])
            order = np.lexsort((-gate.items[places, k], -ratings[gate.rows[places]]))
            best = gate.item_id[places][order[:FILMS]]
            user_id = int(gate.user_id[user])
            weight = float(gate.users[user, k])
            rows.append((name, rank + 1, user_id, raw[user_id], weight, titles.gather(best - 1).to_list()))
    schema = [MODALITY, "rank", USER_ID, RAW_USER_ID, "weight", "titles"]
    return pl.DataFrame(rows, schema, orient="row").with_columns(pl.col(USER_ID, "rank").cast(pl.Int32))
