"""Which interaction is for training, validation or test: three protocols, and the popularity tiers of items.

All take rows sorted by (user, time, file order) and keep one promise: inside a user, training rows come first, then
validation, then test. So a user's history before any target is a prefix of the user's rows.
"""

from typing import Literal

import numpy as np

from msmrec.artifacts import InputError
from msmrec.columns import TEST, TRAIN, VAL

SplitName = Literal["leave_one_out", "user_ratio", "global_time"]


def split(
    name: SplitName, user_id: np.ndarray, timestamp: np.ndarray, ratios: tuple[float, float, float] = (0.8, 0.1, 0.1)
) -> np.ndarray:
    """Assigns every row to a part.

    * leave_one_out: a user's last row is test, the one before validation; users with fewer than three only train.
    * user_ratio: each user's rows are cut by `ratios` in time (rounded so that train keeps at least one row).
    * global_time: all rows in time order are cut by `ratios`; ties keep their order.

    Args:
        user_id: (T,) sorted. timestamp: (T,) ascending inside a user. ratios: train, val, test; they sum to 1.

    Returns:
        (T,) int8 of TRAIN, VAL, TEST.
    """
    if min(ratios) < 0 or abs(sum(ratios) - 1) > 1e-6 or ratios[0] == 0:
        raise InputError(f"data.ratios {ratios}: three shares that sum to 1, the first above 0")
    part = np.full(len(user_id), TRAIN, dtype=np.int8)
    if name == "global_time":
        order = np.argsort(timestamp, kind="stable")
        first, second = (round(len(order) * r) for r in (ratios[0], ratios[0] + ratios[1]))
        part[order[first:second]] = VAL
        part[order[second:]] = TEST
        return part
    _, start, count = np.unique(user_id, return_index=True, return_counts=True)
    position = np.arange(len(user_id)) - np.repeat(start, count)  # 0 for a user's first row
    length = np.repeat(count, count)
    if name == "leave_one_out":
        enough = length >= 3
        part[enough & (position == length - 2)] = VAL
        part[enough & (position == length - 1)] = TEST
    else:
        cut = np.maximum(np.floor(length * ratios[0] + 1e-9), 1)
        part[position >= cut] = VAL
        part[position >= np.maximum(np.floor(length * (ratios[0] + ratios[1]) + 1e-9), cut)] = TEST
    return part


def popularity_tiers(count: np.ndarray, head: float = 0.1, mid: float = 0.4) -> np.ndarray:
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
    first, second = round(len(order) * head), round(len(order) * (head + mid))
    tier[order[:first]], tier[order[first:second]], tier[order[second:]] = "head", "mid", "tail"
    return tier
