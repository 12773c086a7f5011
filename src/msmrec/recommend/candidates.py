"""The first stage: the items nearest to a user's vector, of those that the user has not seen."""

from typing import NamedTuple

import numpy as np

from msmrec.columns import COUNT
from msmrec.data.batches import flat_rows
from msmrec.data.prepare import Dataset
from msmrec.media.features import Features
from msmrec.models.rec_module import users_at_once
from msmrec.retrieval.index import ItemIndex


class Candidates(NamedTuple):
    """What the first stage found, best first; 0 pads where there is less."""

    items: np.ndarray  # (B, K) int32
    scores: np.ndarray  # (B, K) float32 cosine; 0 for popular items in place of nearest ones


def nearest_unseen(
    dataset: Dataset,
    features: Features,
    vectors: np.ndarray,
    users: np.ndarray,
    split: int,
    num_candidates: int,
    within: np.ndarray | None = None,
) -> Candidates:
    """The nearest items of each user by cosine, those before the user's part `split` left out.

    Users are searched in groups of like history length, each as many items further as its longest history, so that
    enough are left when the seen ones are taken out. A user with a zero vector gets the most rated items.

    Args:
        features: items' vectors. vectors: (U + 1, D) users'. users: (B,) user_id.
        split: VAL or TEST, see msmrec.columns. num_candidates: K.
        within: item ids, if no others may be candidates.
    """
    start, end = dataset.offsets[users], dataset.ends[split - 1][users]
    items = np.zeros((len(users), num_candidates), np.int32)
    scores = np.zeros((len(users), num_candidates), np.float32)
    # Where FAISS breaks ties of equal items (genres!) hangs on the group's size, so groups are always made the same.
    index = ItemIndex(device="cpu").build(np.where(features.present[:, None], features.vectors, 0))
    known = vectors[users].any(1)
    popular = np.argsort(-dataset.items[COUNT].to_numpy(), kind="stable") + 1
    if within is not None:
        popular = popular[np.isin(popular, within)]
    size = users_at_once(512, dataset.num_items)
    for is_known in (True, False):
        group = np.flatnonzero(known == is_known)
        group = group[np.argsort(end[group] - start[group], kind="stable")]
        for rows in np.split(group, np.arange(size, len(group), size)):
            if not len(rows):
                continue
            length = end[rows] - start[rows]
            if is_known:
                wide = min(num_candidates + int(length.max()), len(index))
                near, found = index.search(vectors[users[rows]], wide, within=within)
            else:
                found = np.tile(popular[: num_candidates + int(length.max())], (len(rows), 1))
                near = np.zeros(found.shape, np.float32)
            seen = np.zeros((len(rows), dataset.num_items + 1), bool)
            owner, place = flat_rows(start[rows], start[rows] + length)
            seen[owner, dataset.item_id[place]] = True
            seen[:, 0] = True
            fresh = ~np.take_along_axis(seen, np.maximum(found, 0), 1)
            place = np.cumsum(fresh, 1) - 1
            row, column = np.nonzero(fresh & (place < num_candidates))
            at = rows[row], place[row, column]
            items[at], scores[at] = found[row, column], near[row, column]
    return Candidates(items, scores)
