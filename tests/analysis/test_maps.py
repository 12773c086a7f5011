"""Maps: genres that part, genres dealt out at random, and which items are drawn."""

import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from tests.models.test_sequence_models import msmrec

from msmrec.analysis import maps
from msmrec.data.catalogue import genre_matrix
from msmrec.data.prepare import Dataset
from msmrec.models.msmrec import MSMRec


@pytest.fixture(scope="module")
def parted(tiny_genres: Dataset) -> MSMRec:
    """Modality 0: items of a rarest genre share a vector; its expert mixes them up again. Modality 1: all at random."""
    model = msmrec(tiny_genres.num_items)
    model.present.fill_(True)
    model.present[0] = False
    model.vectors.normal_()
    rarest = maps._rarest(tiny_genres)
    for item in range(1, tiny_genres.num_items + 1):
        model.vectors[item, 0] = torch.eye(8)[rarest[item]] + 0.01 * model.vectors[item, 0]
    return model


def test_scores_tell_parted_genres_from_random_ones(parted: MSMRec, tiny_genres: Dataset) -> None:
    table = maps.map_scores(parted, tiny_genres, ["good", "random", "also random"], neighbours=5)
    assert table.select("modality", "stage").rows()[:2] == [("good", "before"), ("good", "after")]
    good, random = table.row(0, named=True), table.row(2, named=True)
    assert good["silhouette"] > 0.9 and good["neighbour_purity"] > 0.9
    assert good["chance_silhouette"] < 0.1 and good["chance_purity"] < 0.8
    assert abs(random["silhouette"] - random["chance_silhouette"]) < 0.1
    assert abs(random["neighbour_purity"] - random["chance_purity"]) < 0.1
    assert good["items"] == tiny_genres.num_items - 1  # the last item has no genre


def test_genres_that_each_have_one_item_are_no_groups(parted: MSMRec, tiny_genres: Dataset, tmp_path: Path) -> None:
    folder = tmp_path / tiny_genres.folder.name
    shutil.copytree(tiny_genres.folder, folder)
    own = tiny_genres.items.with_columns(genres=pl.concat_list(pl.col("raw_item_id").cast(pl.String)))
    own.write_parquet(folder / "items.parquet")
    assert maps.map_scores(parted, Dataset(folder), ["good", "random", "also random"], neighbours=5).is_empty()


def test_purity_by_a_loop(parted: MSMRec, tiny_genres: Dataset) -> None:
    table = maps.map_scores(parted, tiny_genres, ["good", "random", "also random"], neighbours=5)
    items = maps.sampled_items(parted, tiny_genres, 1, None, 0)
    vectors, genres = parted.vectors[:, 1].numpy(), genre_matrix(tiny_genres)
    shared = []
    for item in items:
        cosine = [
            -np.inf if other == item else vectors[item] @ vectors[other] / np.linalg.norm(vectors[other])
            for other in items
        ]
        shared += [(genres[item] * genres[items[at]]).any() for at in np.argsort(cosine)[-5:]]
    assert table["neighbour_purity"][2] == pytest.approx(np.mean(shared))


def test_an_items_genre_is_its_rarest(tiny_genres: Dataset) -> None:
    genres, rarest = genre_matrix(tiny_genres), maps._rarest(tiny_genres)
    for item in range(1, tiny_genres.num_items):
        own = np.flatnonzero(genres[item])
        assert rarest[item] in own and genres[:, rarest[item]].sum() == genres[:, own].sum(0).min()
    assert rarest[tiny_genres.num_items] == -1


def test_maps_place_drawn_items_and_keep_neighbours(parted: MSMRec, tiny_genres: Dataset) -> None:
    table = maps.map_points(parted, tiny_genres, ["good"], ["tsne"], most=40, seed=1)
    assert table.select("stage", "method").unique().height == 2 and len(table) == 80
    before = table.filter(stage="before")
    place, label = before.select("x", "y").to_numpy(), before["genre"].to_numpy()
    distance = np.linalg.norm(place[:, None] - place[None], axis=2) + np.diag(np.full(40, np.inf))
    assert (label[distance.argmin(1)] == label).mean() > 0.9
    assert before["title"].to_list() == [tiny_genres.items["title"][item - 1] for item in before["item_id"]]


def test_umap_maps(parted: MSMRec, tiny_genres: Dataset) -> None:
    pytest.importorskip("umap")
    table = maps.map_points(parted, tiny_genres, ["good"], ["umap"], most=30)
    assert len(table) == 60 and table["x"].is_finite().all() and table["y"].is_finite().all()
