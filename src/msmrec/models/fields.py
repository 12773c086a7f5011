"""Fields: what click models know of a user, an item and a history, as embeddings of one table.

A field is a column of the dataset's users or items, or its id. Its values get rows of their own if a training sample
has them; all others share the field's unknown row. So a user who comes after training is an unknown user, not a random
one. A list (genres) is the mean of its values.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import polars as pl
import torch
from torch import Tensor, nn

from msmrec.artifacts import InputError
from msmrec.columns import (
    COUNT,
    DESCRIPTION,
    FEATURES,
    ITEM_ID,
    RATING,
    RAW_ITEM_ID,
    RAW_USER_ID,
    SPLIT,
    TIER,
    TITLE,
    TRAIN,
    USER_ID,
)  # fmt: skip
from msmrec.data.prepare import Dataset
from msmrec.data.samples import SampleBatch, sample_rows

# A title says no more than the item's id, nor does prose; count and tier are made from the training part's ratings.
NO_FIELDS = (RAW_USER_ID, RAW_ITEM_ID, TITLE, DESCRIPTION, FEATURES, COUNT, TIER)
MAX_RATINGS = 32  # different ratings that get rows of their own; more are grouped by quantiles


class Fields(NamedTuple):
    """Names and codes. Codes are rows of the embedding table: 0 pads, a field has an unknown row and then its values.

    Wu and Wi are the sums over fields of the longest list of values, 1 for a plain column.
    """

    user_fields: list[tuple[str, int]]  # name and how many columns of user_codes
    item_fields: list[tuple[str, int]]
    rows: int  # of the embedding table
    ratings: int  # the first row of ratings; the last ones of the table
    user_codes: Tensor  # (U + 1, Wu)
    item_codes: Tensor  # (N + 1, Wi)
    edges: Tensor  # (R - 1,) ratings from which on the 2nd, 3rd, ... rating row is meant
    label_above: Tensor  # () a history item rated higher is liked


def encode_fields(
    dataset: Dataset, label_above: float, user_fields: Sequence[str] | None, item_fields: Sequence[str] | None
) -> Fields:
    """Codes of a dataset's fields, made from what its training samples have.

    Args:
        dataset: whose users and items have the columns. label_above: a rating above it is a like.
        user_fields, item_fields: columns; None for the id and all columns whose values repeat (see `default_fields`).

    Raises:
        InputError: there is no such column, or a column has numbers with fractions.
    """
    samples = sample_rows(dataset, TRAIN)
    sides: list[tuple[list[tuple[str, int]], Tensor]] = []
    rows = 1  # row 0 pads
    for side, table, names, ids in (
        ("user", dataset.users, user_fields, dataset.user_id[samples]),
        ("item", dataset.items, item_fields, dataset.item_id[samples]),
    ):
        trained = np.bincount(ids, minlength=len(table) + 1)[1:] > 0
        known = default_fields(table)
        spans, codes = [], []
        for name in known if names is None else names:
            if name not in table.columns or table[name].dtype.is_float():
                raise InputError(f"model.{side}_fields: no {name} among the {side}s' columns ({', '.join(known)})")
            column, count = _codes(table[name], trained)
            column = np.concatenate([np.zeros_like(column[:1]), column])  # id 0
            unknown = ~column.any(1)
            column[column > 0] += rows
            column[unknown, 0] = rows
            rows += 1 + count
            spans.append((name, column.shape[1]))
            codes.append(column)
        empty = np.zeros((len(table) + 1, 0), dtype=np.int64)
        sides.append((spans, torch.from_numpy(np.concatenate([empty, *codes], 1))))
    given = dataset.column(RATING)[dataset.column(SPLIT) == TRAIN]
    values = np.unique(given)
    if len(values) > MAX_RATINGS:
        values = np.unique(np.quantile(given, np.arange(MAX_RATINGS) / MAX_RATINGS))
    (users, user_codes), (items, item_codes) = sides
    edges = torch.from_numpy(values[1:].astype(np.float32))
    above = torch.tensor(float(label_above))
    return Fields(users, items, rows + len(values), rows, user_codes, item_codes, edges, above)


def default_fields(table: pl.DataFrame) -> list[str]:
    """The id and every column of words, categories, whole numbers or lists of them whose values repeat."""
    names = []
    for name, column in zip(table.columns, table, strict=True):
        kind = column.dtype.inner if isinstance(column.dtype, pl.List) else column.dtype  # lists of genres
        discrete = kind.is_integer() or kind in (pl.String, pl.Categorical, pl.Enum, pl.Boolean)
        values = column.explode() if isinstance(column.dtype, pl.List) else column
        repeats = values.n_unique() < len(values)
        if name in (USER_ID, ITEM_ID) or (name not in NO_FIELDS and discrete and repeats):
            names.append(name)
    return names


def _codes(column: pl.Series, trained: np.ndarray) -> tuple[np.ndarray, int]:
    """(n, W) 1 .. count for values that a trained row has, in their order, 0 for others and behind short lists."""
    frame = pl.DataFrame({"row": np.arange(len(column)), "value": column})
    if isinstance(column.dtype, pl.List | pl.Array):
        frame = frame.explode("value")
    frame = frame.drop_nulls("value")  # what explode makes of an empty list, too
    kind = frame["value"].dtype
    # Categories go by their words, not by their numbers; truth values have no rank.
    plain = pl.String if kind in (pl.Categorical, pl.Enum) else pl.Int8 if kind == pl.Boolean else kind
    rank = frame["value"].cast(plain).rank("dense").to_numpy().astype(np.int64)  # from 1
    row = frame["row"].to_numpy()
    has_row = np.bincount(rank[trained[row]], minlength=rank.max(initial=0) + 1) > 0
    code = (np.cumsum(has_row) * has_row)[rank]
    row, code = row[code > 0], code[code > 0]
    length = np.bincount(row, minlength=len(column))
    codes = np.zeros((len(column), length.max(initial=1)), dtype=np.int64)
    codes[row, np.arange(len(row)) - (np.cumsum(length) - length)[row]] = code
    return codes, int(has_row.sum())


class FieldEmbedding(nn.Module):
    """One embedding table for the fields of users and items, the items of histories and their ratings.

    Args:
        fields: from `encode_fields`; its codes are buffers here. dim: width D.
        id_dropout: chance that in training a user's id, and apart from it an item's, is read as unknown, so that the
            unknown rows are trained too.
    """

    user_codes: Tensor
    item_codes: Tensor
    edges: Tensor
    label_above: Tensor

    def __init__(self, fields: Fields, dim: int, id_dropout: float = 0.0) -> None:
        super().__init__()
        self.spans = [*fields.user_fields, *fields.item_fields]
        self.num_fields, self.ratings, self.id_dropout = len(self.spans), fields.ratings, id_dropout
        for name in ("user_codes", "item_codes", "edges", "label_above"):
            self.register_buffer(name, getattr(fields, name))
        self.table = nn.Embedding(fields.rows, dim, padding_idx=0)
        nn.init.normal_(self.table.weight[1:], std=0.02)
        starts = np.cumsum([0, *(width for _, width in self.spans)]).tolist()
        self.ids = [starts[k] for k, (name, _) in enumerate(self.spans) if name in (USER_ID, ITEM_ID)]
        items = dict(zip((name for name, _ in fields.item_fields), starts[len(fields.user_fields) :], strict=False))
        # Where item_codes has the id, which the items of a history are looked up by.
        self.item_column = items[ITEM_ID] - starts[len(fields.user_fields)] if ITEM_ID in items else None

    def forward(self, user_id: Tensor, item_id: Tensor) -> Tensor:
        """(B,) users and (B,) items to (B, F, D), in the order of the fields, a list as the mean of its values."""
        codes = torch.cat([self.user_codes[user_id], self.item_codes[item_id]], 1)  # (B, Wu + Wi)
        if self.training and self.id_dropout > 0:
            for k in self.ids:
                hidden = torch.rand(len(codes), device=codes.device) < self.id_dropout
                codes[:, k] = torch.where(hidden, self._unknown(k), codes[:, k])
        values = self.table(codes)  # padding is 0
        if len(self.spans) == codes.shape[1]:
            return values  # type: ignore[no-any-return]
        widths = [width for _, width in self.spans]
        columns = zip(torch.split(values, widths, 1), torch.split(codes, widths, 1), strict=True)
        return torch.stack([v.sum(1) / (c > 0).sum(1, keepdim=True) for v, c in columns], 1)

    def _unknown(self, k: int) -> Tensor:
        """Row of an id field's unknown: what row 0 of the codes, which is nobody, has."""
        users = self.user_codes.shape[1]
        return self.user_codes[0, k] if k < users else self.item_codes[0, k - users]

    def items(self, item_id: Tensor) -> Tensor:
        """(...) items, 0 for padding, to (..., D) embeddings of their ids, 0 for padding."""
        if self.item_column is None:
            raise InputError(f"model.item_fields must list {ITEM_ID}: a history is read by the ids of its items")
        codes = self.item_codes[:, self.item_column]
        embedded: Tensor = self.table(codes[item_id] * (item_id > 0))
        return embedded

    def rated(self, rating: Tensor, real: Tensor) -> Tensor:
        """(B, L) ratings and (B, L) whether they are no padding to (B, L, D) embeddings, 0 for padding."""
        rows = self.ratings + torch.bucketize(rating, self.edges, right=True)
        embedded: Tensor = self.table(rows * real)
        return embedded

    def history(self, batch: SampleBatch) -> tuple[Tensor, Tensor]:
        """(B, L, D) items of the histories and (B, L, D) their ratings, both 0 at padding."""
        return self.items(batch.item_seq), self.rated(batch.rating_seq, batch.item_seq > 0)

    def pooled(self, batch: SampleBatch, items: Tensor, ratings: Tensor, windows: Sequence[int]) -> Tensor:
        """Means over the latest ratings, three fields for each of W windows.

        Args:
            batch: whose history it is. items, ratings: its (B, L, D) vectors, from `history`.
            windows: how many of the latest ratings each mean is over.

        Returns:
            (B, 3 W, D) for each window the mean of the items liked, of those not liked, and of the ratings' vectors.
        """
        back = recency(batch)[:, None]  # (B, 1, L)
        # One by one: a tensor of the windows would be a copy from the host in every step.
        seen = torch.cat([(back >= 0) & (back < window) for window in windows], 1)  # (B, W, L)
        liked = (batch.rating_seq > self.label_above)[:, None]
        groups = torch.stack([seen & liked, seen & ~liked], 2).flatten(1, 2)  # (B, 2 W, L)
        means = (_share(groups) @ items.float()).view(len(items), -1, 2, items.shape[-1])
        given = _share(seen) @ ratings.float()
        return torch.cat([means, given[:, :, None].to(means.dtype)], 2).flatten(1, 2)


def recency(batch: SampleBatch) -> Tensor:
    """(B, L) 0 for the latest rating, 1 for the one before, ...; -1 and less at padding."""
    return batch.seq_len[:, None] - 1 - torch.arange(batch.item_seq.shape[1], device=batch.seq_len.device)


def _share(groups: Tensor) -> Tensor:
    """Weights of a mean over each group's members; zeros for an empty group."""
    members = groups.float()
    return members / members.sum(-1, keepdim=True).clamp(min=1)
