"""Which earlier ratings of a user speak about a target: the K most relevant and the K most recent, for many samples.

A history is a set of rows of the interactions (see Dataset), so it carries item, rating and time at once. The samples
of one user share their history, so they are searched in groups, and groups of like length are stacked: no loop over
samples or users. Nearness and place are packed into one integer, because sorting integers is ten times faster than an
argsort of floats, and ties are then decided by time.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from msmrec.artifacts import InputError
from msmrec.data.prepare import Dataset
from msmrec.item_vectors import check_vectors

GROUP = 64  # samples of one user that are searched together
CELLS = 1 << 17  # similarities worked on at once: they stay in a core's cache
# All products of item vectors are made once, for catalogues up to this size (1.6 GB) of whose products this share at
# least is asked for: one large matrix product costs a fraction of many small ones.
GRAM_ITEMS, GRAM_SHARE = 20_000, 1 / 2
BLOCK = 1 << 16  # samples that are merged together


class Channel(NamedTuple):
    """Rows of earlier ratings, best first, and how near they are."""

    rows: np.ndarray  # (S, K) int32 rows of the interactions; -1 where the history is shorter than K
    similarity: np.ndarray  # (S, K) float32, -inf there


def relevant_history(dataset: Dataset, spaces: Sequence[np.ndarray], rows: np.ndarray, k: int) -> Channel:
    """The k earlier ratings of the same user whose items are nearest to each sample's target.

    Args:
        dataset: a prepared dataset.
        spaces: item vectors, (N + 1, D) each. One: nearness is the inner product. Several: each space's products go
            through a softmax over the history and are averaged (Hybrid-Score in the RALLRec paper).
        rows: (S,) samples, as rows of the interactions.
        k: earlier ratings to keep.

    Returns:
        Channel of (S, k), in the order of `rows`; of equally near ones the later comes first. One space's products are
        compared to 8e-6 of the longest vector's square, finer where histories are short.
    """
    spaces = [check_vectors(space, dataset.num_items) for space in spaces]
    best = np.full((len(rows), k), -1, np.int32)
    near = np.full((len(rows), k), -np.inf, np.float32)
    # An inner product is at most the longest vector's square; a mean of softmaxes at most 1.
    bound = 1.0 if len(spaces) > 1 else max(float((spaces[0] ** 2).sum(1).max()), 1e-12)
    # Nearness in the high bits, place in the low ones: 31 bits in all, which is exact to 8e-6 of the bound for
    # histories up to 4,096. Longer ones take 52, and so do means of softmaxes, which are about 1 / length.
    bits = max(int((rows - dataset.offsets[dataset.user_id[rows]]).max(initial=1)) - 1, 1).bit_length()
    short = bits <= 12 and len(spaces) == 1
    whole = torch.int32 if short else torch.int64
    half = float((1 << ((31 if short else 52) - bits - 1)) - 1) / 2

    def packed(product: Tensor) -> Tensor:
        product = product if len(spaces) == 1 else product.double()
        return product.mul(half / bound).add_(half).round_().to(whole).bitwise_left_shift_(bits)

    products = _Products(spaces, packed, int((rows - dataset.offsets[dataset.user_id[rows]]).sum()))
    place = torch.arange(1 << bits, dtype=whole)
    for group in _groups(dataset, rows):
        future = torch.from_numpy(group.history)[:, None] >= torch.from_numpy(group.asked)[..., None]  # (G, Q, L)
        product = products(dataset.item_id[group.asked], dataset.item_id[group.history], future)
        key = product.bitwise_or_(place[: product.shape[-1]]).masked_fill_(future, -1).numpy()
        key.sort(axis=-1)
        kept = key[..., : -k - 1 : -1][group.real]  # (S', <= k) falling
        row = group.history[group.real.nonzero()[0], :1] + (kept & ((1 << bits) - 1))
        count = kept.shape[1]
        best[group.sample, :count] = np.where(kept < 0, -1, row)
        near[group.sample, :count] = np.where(kept < 0, -np.inf, ((kept >> bits) - half) * (bound / half))
    return Channel(best, near)


class _Products:
    """Nearness of targets and earlier items as packed integers: looked up where it pays to make all, else multiplied.

    Args:
        spaces: item vectors, (N + 1, D) each. packed: nearness to integers. pairs: how many will be asked for.
    """

    def __init__(self, spaces: Sequence[np.ndarray], packed: Callable[[Tensor], Tensor], pairs: int) -> None:
        self.packed, self.width = packed, len(spaces[0])
        self.spaces = [torch.from_numpy(space) for space in spaces]
        self.grams: list[Tensor] = []
        if self.width <= GRAM_ITEMS and pairs >= GRAM_SHARE * self.width**2:
            self.grams = [(space @ space.T).flatten() for space in self.spaces]
            if len(self.grams) == 1:
                self.grams = [packed(self.grams[0])]

    def __call__(self, target: np.ndarray, earlier: np.ndarray, future: Tensor) -> Tensor:
        """(G, Q, L) for (G, Q) targets and (G, L) earlier items."""
        right, left = torch.from_numpy(target), torch.from_numpy(earlier)
        if self.grams:
            cell = ((right * self.width)[..., None] + left[:, None]).flatten()  # int32: GRAM_ITEMS squared fits
            found = [gram.index_select(0, cell).view(future.shape) for gram in self.grams]
            if len(found) == 1:
                return found[0]
        else:
            found = [F.embedding(right, space) @ F.embedding(left, space).mT for space in self.spaces]
        if len(found) > 1:
            found = [one.masked_fill_(future, -torch.inf).softmax(-1).nan_to_num_() for one in found]
        return self.packed(torch.stack(found).mean(0))


class _Group(NamedTuple):
    history: np.ndarray  # (G, L) int32 rows of a user, from the first; past the group's last sample they do not matter
    asked: np.ndarray  # (G, Q) int32 rows of the samples
    real: np.ndarray  # (G, Q) bool
    sample: np.ndarray  # (real.sum(),) which samples these are


def _groups(dataset: Dataset, rows: np.ndarray) -> Iterator[_Group]:
    """Up to GROUP samples of one user each, stacked with others of like history so that CELLS is kept."""
    order = np.argsort(rows, kind="stable")
    sample = rows[order]
    begins = np.flatnonzero(np.diff(dataset.user_id[sample], prepend=-1))
    nth = np.arange(len(sample)) - np.repeat(begins, np.diff(begins, append=len(sample)))
    first = np.flatnonzero(nth % GROUP == 0)
    size = np.diff(first, append=len(sample))
    start = dataset.offsets[dataset.user_id[sample[first]]]
    length = np.maximum(sample[first + size - 1] - start, 1)
    by_length = np.argsort(length, kind="stable")
    cuts = np.flatnonzero(np.diff(np.cumsum(length[by_length] * GROUP) // CELLS)) + 1
    for block in np.split(by_length, cuts):
        if len(block):
            place = first[block][:, None] + np.arange(size[block].max())
            real = np.arange(place.shape[1]) < size[block][:, None]
            place = np.minimum(place, len(sample) - 1)
            history = start[block][:, None] + np.arange(length[block].max())
            history = np.minimum(history, len(dataset.item_id) - 1)
            yield _Group(history.astype(np.int32), sample[place].astype(np.int32), real, order[place[real]])


def recent_history(dataset: Dataset, rows: np.ndarray, k: int, window: int = 1) -> np.ndarray:
    """(S, k + window - 1) int32 the latest earlier ratings of the same user, latest first; -1 where there are fewer.

    They begin at `history_start`: each history has k to k + window - 1 of them.
    """
    start = history_start(dataset, rows, k, window).astype(np.int32)
    recent = rows[:, None].astype(np.int32) - np.arange(1, k + window, dtype=np.int32)
    return np.where(recent < start[:, None], np.int32(-1), recent)


def history_start(dataset: Dataset, rows: np.ndarray, k: int, window: int) -> np.ndarray:
    """(S,) row of the oldest rating told: k before the sample, brought back to the user's next window-th rating.

    So up to `window` neighbouring samples of a user have histories that begin alike, each the beginning of the next.
    """
    first = dataset.offsets[dataset.user_id[rows]]
    start: np.ndarray = first + np.maximum(rows - first - k, 0) // window * window
    return start


def union(dataset: Dataset, relevant: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The relevant ratings of each sample, and behind them the recent ones.

    Args:
        relevant: (S, K) int32 rows, best first, -1 pads. rows: (S,) the samples.

    Returns:
        (S, 2K) int32 rows, -1 where there is none or it stood in the relevant channel already; (S, K) where the recent
        channel has each relevant rating, K for nowhere.
    """
    k = relevant.shape[1]
    # A rating r steps before the sample stands at place r of the recent channel: no search is needed.
    step = rows[:, None].astype(np.int32) - relevant
    column = np.where((relevant >= 0) & (step <= k), step - 1, k)
    again = np.zeros((len(rows), k + 1), bool)
    np.put_along_axis(again, column, True, 1)
    late = np.where(again[:, :k], np.int32(-1), recent_history(dataset, rows, k))
    return np.concatenate([relevant, late], 1), column


def rerank(dataset: Dataset, relevant: np.ndarray, rows: np.ndarray, alpha: float, beta: float) -> np.ndarray:
    """Merges the relevant and the recent channel by channel and position scores (eq. 8) and keeps the best K.

    A rating at place p (from 1) scores alpha / p^beta in the relevant channel and (1 - alpha) / p^beta in the recent
    one; one that both channels found scores the sum. alpha = 1 keeps the relevant, alpha = 0 the recent order.

    Args:
        relevant: (S, K) int32 rows, best first, -1 pads. rows: (S,) the samples.

    Returns:
        (S, K) int32 rows by falling score, -1 pads.
    """
    if not 0 <= alpha <= 1 or beta < 0:
        raise InputError(f"alpha {alpha} must lie between 0 and 1, and beta {beta} must not be negative")
    k = relevant.shape[1]
    bits = (2 * k - 1).bit_length()
    scale = float(1 << (30 - bits))
    position = np.arange(1, k + 1, dtype=np.float64) ** -float(beta)
    # Score and place in one integer, as above; earlier places win ties. 0 means that a channel has nothing there.
    first = np.round(alpha * position * scale).astype(np.int32)
    second = np.round((1 - alpha) * position * scale).astype(np.int32)
    place = np.arange(2 * k - 1, -1, -1, dtype=np.int32)
    merged = np.empty_like(relevant)
    for begin in range(0, len(rows), BLOCK):
        sample, near = rows[begin : begin + BLOCK], relevant[begin : begin + BLOCK]
        both, column = union(dataset, near, sample)
        score = np.where(near >= 0, first + np.append(second, 0).astype(np.int32)[column], -1)
        key = np.concatenate([score, np.where(both[:, k:] >= 0, second, -1)], 1)
        key = np.where(key < 0, np.int32(-1), (key << bits) | place)
        key = np.sort(key, axis=1)[:, : -k - 1 : -1]
        found = np.take_along_axis(both, 2 * k - 1 - (key & ((1 << bits) - 1)), 1)
        merged[begin : begin + BLOCK] = np.where(key < 0, -1, found)
    return merged


def in_time(history: np.ndarray) -> np.ndarray:
    """(S, K) the same rows oldest first, -1 in front: rows of a user ascend in time."""
    return np.sort(history, axis=1)
