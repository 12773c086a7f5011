"""Which interaction is for training, validation or test: four protocols, and the popularity tiers of items.

All take rows sorted by (user, time, file order). Those that go by time keep one promise: inside a user, training rows
come first, then validation, then test. So a user's history before any target is a prefix of the user's rows.
"""

from typing import Literal

import numpy as np

from msmrec.artifacts import InputError
from msmrec.columns import TEST, TRAIN, VAL

HEAD, MID = 0.1, 0.4  # shares of the items with training ratings, by which every table of tiers is cut

SplitName = Literal["leave_one_out", "user_ratio", "user_random", "global_time"]


def split(
    name: SplitName,
    user_id: np.ndarray,
    timestamp: np.ndarray,
    ratios: tuple[float, float, float] = (0.8, 0.1, 0.1),
    min_history: int = 0,
) -> np.ndarray:
    """Assigns every row to a part.

    * leave_one_out: a user's last row is test, the one before validation; users with fewer than three only train.
    * user_ratio: each user's rows are cut by `ratios` in time (rounded so that train keeps at least one row).
    * user_random: each user's rows are shuffled (seed 0) and cut by `ratios`: val and test get the whole part of their
      share, and at least one row where a user has three.
    * global_time: all rows in time order are cut by `ratios`, train and val rounded down; ties keep their order. Rows
      with fewer than `min_history` earlier ones of their user count for no share and fall where their time does.

    Args:
        user_id: (T,) sorted. timestamp: (T,) ascending inside a user. ratios: train, val, test; they sum to 1.

    Returns:
        (T,) int8 of TRAIN, VAL, TEST.

    Raises:
        InputError: the ratios are no shares, or leave nothing to train on.
    """
    if min(ratios) < 0 or not abs(sum(ratios) - 1) <= 1e-6 or ratios[0] == 0:
        raise InputError(f"data.protocol.ratios {ratios}: three shares that sum to 1, the first above 0")
    part = np.full(len(user_id), TRAIN, dtype=np.int8)
    start = np.flatnonzero(np.diff(user_id, prepend=user_id[:1] - 1))
    count = np.diff(start, append=len(user_id))
    if name == "leave_one_out":
        last = (start + count - 1)[count >= 3]
        part[last], part[last - 1] = TEST, VAL
        return part
    position = np.arange(len(user_id)) - np.repeat(start, count)  # 0 for a user's first row
    length = np.repeat(count, count)
    if name == "global_time":
        order = np.argsort(timestamp, kind="stable")
        counts = position[order] >= min_history
        before: np.ndarray = np.cumsum(counts) - counts  # samples earlier than this row
        total = int(counts.sum())
        first = int(total * ratios[0] + 1e-9)
        if not first:
            raise InputError(
                f"no training sample is left: {total:,} of {len(part):,} rows have data.protocol.min_history"
                f" {min_history} earlier ones of their user (the most is {position.max(initial=0)}), and"
                f" data.protocol.ratios gives {ratios[0]:g} of them to training; lower min_history, or keep more rows"
            )
        second = first + int(total * ratios[1] + 1e-9)
        part[order] = TRAIN + (before >= first) * (VAL - TRAIN) + (before >= second) * (TEST - VAL)
    elif name == "user_random":
        shuffled = np.lexsort((np.random.default_rng(0).random(len(user_id)), user_id))
        val, test = (np.maximum((length * r + 1e-9).astype(int), (length >= 3) & (r > 0)) for r in ratios[1:])
        part[shuffled[position >= length - test - val]] = VAL
        part[shuffled[position >= length - test]] = TEST
    else:
        cut = np.maximum(np.floor(length * ratios[0] + 1e-9), 1)
        part[position >= cut] = VAL
        part[position >= np.maximum(np.floor(length * (ratios[0] + ratios[1]) + 1e-9), cut)] = TEST
    return part


def popularity_tiers(count: np.ndarray) -> np.ndarray:
    """Splits items by their number of training interactions: the top 10% are head, the next 40% mid, the rest tail.

    Items with no training interaction are "cold" and stay out of the shares.

    Args:
        count: (N,) training interactions of each item.

    Returns:
        (N,) str: "head", "mid", "tail" or "cold".
    """
    tier = np.full(len(count), "cold", dtype="<U4")
    warm = np.flatnonzero(count > 0)
    order = warm[np.argsort(-count[warm], kind="stable")]
    first, second = round(len(order) * HEAD), round(len(order) * (HEAD + MID))
    tier[order[:first]], tier[order[first:second]], tier[order[second:]] = "head", "mid", "tail"
    return tier
