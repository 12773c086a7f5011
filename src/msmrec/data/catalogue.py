"""What beyond-accuracy measures read of a dataset: popularity and genres of items, genres of users' histories."""

import numpy as np
import polars as pl
import torch
from torch import Tensor

from msmrec.columns import COUNT, GENRES, TIER
from msmrec.data.batches import flat_rows
from msmrec.data.prepare import Dataset
from msmrec.metrics.beyond_accuracy import TIERS, Catalogue


def multi_hot(values: pl.Series) -> np.ndarray:
    """(N + 1, T) float32: 1 where item i has a value in its list, values in their order; row 0 is the padding."""
    rows = pl.DataFrame({"value": values}).with_row_index("item", offset=1).explode("value").drop_nulls()
    codes = rows["value"].rank("dense").cast(pl.Int64).to_numpy() - 1
    hot = np.zeros((len(values) + 1, codes.max(initial=-1) + 1), np.float32)
    hot[rows["item"].to_numpy(), codes] = 1
    return hot


def genre_matrix(dataset: Dataset) -> np.ndarray:
    """(N + 1, G) float32: 1 where an item has a genre, genres in alphabetical order; row 0 is the padding."""
    return multi_hot(dataset.items[GENRES])


def catalogue_of(dataset: Dataset, device: torch.device) -> Catalogue:
    """The items' popularity in the training part and their genres."""
    tier = dataset.items[TIER].replace_strict(list(TIERS), list(range(len(TIERS))), return_dtype=pl.Int64)
    genres = genre_matrix(dataset)
    genres /= np.maximum(genres.sum(1, keepdims=True), 1)
    columns = [np.concatenate([[0], column.to_numpy()]) for column in (dataset.items[COUNT], tier)]
    return Catalogue(*(torch.from_numpy(a).to(device) for a in (*columns, genres)))


def genre_tastes(dataset: Dataset, genres: Tensor, split: int) -> Tensor:
    """(U + 1, G) mean p(g | i) over each user's history before `split` (VAL or TEST), rows sum to 1; 0 without genres.

    Args:
        genres: (N + 1, G) of the catalogue.
    """
    length = dataset.ends[split - 1] - dataset.offsets[:-1]
    _, rows = flat_rows(dataset.offsets[:-1], dataset.ends[split - 1])
    items = torch.from_numpy(dataset.item_id[rows]).long()
    bounds = torch.from_numpy(np.cumsum(length) - length)
    total = torch.nn.functional.embedding_bag(items, genres.cpu().double(), bounds, mode="sum")
    return (total / total.sum(1, keepdim=True).clamp(min=1e-12)).float().to(genres.device)
