"""Maps of the items by each modality, before (the frozen text vector) and after (what the expert makes of it).

It is easy to read too much into a map, so numbers stand beside each, of the vectors themselves and not of the picture:
the silhouette by genre, and how many of an item's k nearest neighbours share a genre with it. Both by cosine, and both
beside what they are when genres are dealt out to the items at random.

An item has several genres. The picture's colour, and the silhouette, take the rarest of them, which says most (a
"Comedy|Drama|Film-Noir" is a Film-Noir); neighbours may share any.
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray

from msmrec.artifacts import InputError
from msmrec.columns import GENRES, ITEM_ID, MODALITY, TITLE
from msmrec.data.catalogue import genre_matrix
from msmrec.data.prepare import Dataset
from msmrec.item_vectors import normalised
from msmrec.models.msmrec import MSMRec

STAGES = ("before", "after")
METHODS = ("tsne", "umap")
SCORED = 2000  # items of a modality that are scored: the distances of all their pairs are in memory at once
Vectors = NDArray[np.float32]


def stages(model: MSMRec, modality: int) -> Iterator[tuple[str, Vectors]]:
    """The two stages' vectors (N + 1, ...) of a modality."""
    yield STAGES[0], model.vectors[:, modality].cpu().numpy()
    with torch.inference_mode():
        yield STAGES[1], (model.vectors[:, modality] @ model.expert[modality]).float().cpu().numpy()


def sampled_items(model: MSMRec, dataset: Dataset, modality: int, most: int | None, seed: int) -> NDArray[np.int64]:
    """Items that have the modality's text, and a genre if there are genres at all; at most so many of them."""
    there = model.present[:, modality].cpu().numpy().copy()
    has_genre = genre_matrix(dataset).any(1)
    if has_genre.any():
        there &= has_genre
    items = np.flatnonzero(there)
    if most is None or len(items) <= most:
        return items
    return np.sort(np.random.default_rng(seed).choice(items, most, replace=False))


def map_scores(
    model: MSMRec, dataset: Dataset, names: Sequence[str], neighbours: int = 10, seed: int = 0
) -> pl.DataFrame:
    """How well genres part in each modality's vectors.

    Returns:
        modality, stage, items, silhouette, chance_silhouette (-1 to 1), neighbour_purity, chance_purity (0 to 1); no
        rows where the items have no genres, or each its own.
    """
    genres, rarest = genre_matrix(dataset), _rarest(dataset)
    rng, rows = np.random.default_rng(seed), []
    for k, name in enumerate(names):
        items = sampled_items(model, dataset, k, SCORED, seed)
        labels = len(np.unique(rarest[items]))
        if not genres.any() or len(items) <= neighbours or not 1 < labels < len(items):
            continue
        dealt = rng.permutation(items)
        for stage, vectors in stages(model, k):
            distance = _cosine_distance(vectors[items])
            nearest = np.argpartition(distance + 2 * np.eye(len(items)), neighbours, axis=1)[:, :neighbours]
            scores = [
                score
                for given in (items, dealt)
                for score in (_silhouette(distance, rarest[given]), _purity(nearest, genres[given]))
            ]
            rows.append((name, stage, len(items), scores[0], scores[2], scores[1], scores[3]))
    columns = ("silhouette", "chance_silhouette", "neighbour_purity", "chance_purity")
    schema = {MODALITY: pl.String, "stage": pl.String, "items": pl.Int64} | dict.fromkeys(columns, pl.Float64)
    return pl.DataFrame(rows, schema, orient="row")


def map_points(
    model: MSMRec,
    dataset: Dataset,
    names: Sequence[str],
    methods: Sequence[str] = METHODS,
    most: int | None = 600,
    seed: int = 0,
) -> pl.DataFrame:
    """The items in two dimensions.

    Returns:
        item_id, title, modality, stage, method, x, y, genre (the rarest of the item's; null where it has none).

    Raises:
        InputError: UMAP is asked for and not installed.
    """
    genre = pl.DataFrame({ITEM_ID: np.arange(dataset.num_items + 1, dtype=np.int32), "at": _rarest(dataset)})
    called = dict(enumerate(dataset.items[GENRES].explode().drop_nulls().unique().sort()))
    about = dataset.items.select(ITEM_ID, TITLE).join(genre, on=ITEM_ID, maintain_order="left")
    about = about.with_columns(genre=pl.col("at").replace_strict(called, default=None, return_dtype=pl.String))
    parts = []
    for k, name in enumerate(names):
        items = sampled_items(model, dataset, k, most, seed)
        if len(items) < 5:
            continue
        for stage, vectors in stages(model, k):
            for method in methods:
                x, y = PLACED[method](normalised(vectors[items]), seed).T
                parts.append(
                    pl.DataFrame({ITEM_ID: items.astype(np.int32), "x": x, "y": y}).with_columns(
                        pl.lit(name).alias(MODALITY), stage=pl.lit(stage), method=pl.lit(method)
                    )
                )
    points = pl.concat(parts) if parts else pl.DataFrame(schema=_POINTS)
    titled = points.join(about, on=ITEM_ID, how="left", maintain_order="left")
    return titled.select(ITEM_ID, TITLE, MODALITY, "stage", "method", "x", "y", "genre")


_POINTS = {ITEM_ID: pl.Int32, "x": pl.Float32, "y": pl.Float32} | dict.fromkeys(
    (MODALITY, "stage", "method"), pl.String
)


def _tsne(vectors: Vectors, seed: int) -> Vectors:
    from sklearn.manifold import TSNE

    perplexity = min(30.0, (len(vectors) - 1) / 3)
    placed = TSNE(perplexity=perplexity, init="pca", random_state=seed).fit_transform(vectors)
    return np.asarray(placed, np.float32)


def _umap(vectors: Vectors, seed: int) -> Vectors:
    try:
        import umap
    except ImportError:
        raise InputError("UMAP maps need umap-learn: pip install 'msmrec[maps]', or ask for --maps tsne") from None
    reducer = umap.UMAP(n_neighbors=min(15, len(vectors) - 1), random_state=seed, n_jobs=1)
    return np.asarray(reducer.fit_transform(vectors), np.float32)


PLACED: dict[str, Callable[[Vectors, int], Vectors]] = {"tsne": _tsne, "umap": _umap}


def _rarest(dataset: Dataset) -> NDArray[np.int64]:
    """(N + 1,) each item's genre that the fewest items have, as its place in the alphabet; -1 for none."""
    genres = genre_matrix(dataset)
    if not genres.any():
        return np.full(len(genres), -1)
    rarest: NDArray[np.int64] = np.where(genres > 0, genres.sum(0), np.inf).argmin(1)
    return np.asarray(np.where(genres.any(1), rarest, -1))


def _cosine_distance(vectors: Vectors) -> Vectors:
    """(n, n), 0 on the diagonal."""
    unit = normalised(vectors)
    distance: Vectors = np.clip(1 - unit @ unit.T, 0, 2)
    np.fill_diagonal(distance, 0)
    return distance


def _silhouette(distance: Vectors, label: NDArray[np.int64]) -> float:
    from sklearn.metrics import silhouette_score

    return float(silhouette_score(distance, label, metric="precomputed"))


def _purity(nearest: NDArray[np.int64], genres: NDArray[np.float32]) -> float:
    """Share of the neighbours (n, k) that have one of the item's genres (n, G)."""
    return float(np.mean((genres[:, None] * genres[nearest]).any(2)))
