"""The data and the measure that all SASRec peers share: NDCG@10 of the test item among all items not seen before."""

import numpy as np


def load(work):
    """The encoded interactions that ours were trained on: user, item, time, split (0 train, 1 val, 2 test)."""
    with np.load(work / "sasrec.npz") as file:
        return {name: file[name] for name in file.files}


def histories(data, parts):
    """{user: items in time order} of the rows whose split is in `parts`."""
    keep = np.isin(data["split"], parts)
    user, item = data["user"][keep], data["item"][keep]
    borders = np.flatnonzero(np.diff(user)) + 1
    return dict(zip(user[np.r_[0, borders]].tolist(), np.split(item, borders), strict=True))


def ndcg_at_10(lists, targets):
    """Args: lists (U, 10) of items, best first; targets (U,)."""
    _, place = np.nonzero(lists == targets[:, None])
    return float((1 / np.log2(place + 2)).sum() / len(targets))
