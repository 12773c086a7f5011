"""Genres as features."""

from pathlib import Path

import pytest

from msmrec.artifacts import InputError
from msmrec.data.prepare import Dataset
from msmrec.media.genres import GenreFeatures


def test_one_column_a_genre(tiny_genres: Dataset, tiny: Dataset, tmp_path: Path) -> None:
    vectors, present = GenreFeatures().vectors(tiny_genres, tmp_path, tmp_path)
    assert vectors.shape == (tiny.num_items + 1, 5) and not vectors[0].any()
    for item, genres in tiny_genres.items.select("item_id", "genres").iter_rows():
        assert vectors[item].tolist() == [float(g in genres) for g in "abcde"]
        assert present[item] == bool(genres)
    assert not present[0] and not present[-1]  # the last item has none
    with pytest.raises(InputError, match="knows no genres"):
        GenreFeatures().vectors(tiny, tmp_path, tmp_path)
