"""Popularity, genres and tastes of the tiny world against plain loops."""

import numpy as np
import pytest
import torch

from msmrec.columns import TEST, VAL
from msmrec.data.catalogue import catalogue_of, genre_tastes
from msmrec.data.prepare import Dataset


def test_catalogue_and_tastes(tiny_genres: Dataset) -> None:
    tiny = tiny_genres
    catalogue = catalogue_of(tiny, torch.device("cpu"))
    rows = tiny.items.rows(named=True)
    names = sorted({g for row in rows for g in row["genres"]})
    assert catalogue.genres.shape == (tiny.num_items + 1, len(names)) and len(names) > 1
    for row in rows:
        item = row["item_id"]
        assert catalogue.popularity[item] == row["count"]
        assert ("head", "mid", "tail", "cold")[catalogue.tier[item]] == row["tier"]
        expected = [(g in row["genres"]) / max(len(row["genres"]), 1) for g in names]
        assert catalogue.genres[item].tolist() == pytest.approx(expected)
    for split in (VAL, TEST):
        tastes = genre_tastes(tiny, catalogue.genres, split)
        for user in (1, 7, tiny.num_users):
            items = tiny.item_id[tiny.offsets[user] : tiny.ends[split - 1][user]]
            p = np.sum([catalogue.genres[i].numpy() for i in items], axis=0)
            assert tastes[user].tolist() == pytest.approx((p / p.sum()).tolist(), abs=1e-6)
