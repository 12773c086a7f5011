"""Similarities of many texts in bounded memory: sparse TF-IDF rows, and their products a block of rows at a time."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float32]

BLOCK_ENTRIES = 20_000_000
"""Most entries of one block of a product: about 160 MB where none is zero."""


def tfidf(texts: list[str], **options: Any) -> Any:
    """Sparse L2-normalised TF-IDF rows (n_texts, n_terms).

    Terms in more than a twentieth of a large corpus are left out: they say little and fill the products.
    """
    from scipy.sparse import csr_matrix
    from sklearn.feature_extraction.text import TfidfVectorizer

    common = max(200, len(texts) // 20)
    vectorizer = TfidfVectorizer(
        sublinear_tf=True,
        max_df=common,
        strip_accents="unicode",
        dtype=np.float32,
        token_pattern=r"(?u)\b\w\w+\b",
        **options,
    )
    try:
        return vectorizer.fit_transform(texts)
    except ValueError as error:
        if "empty vocabulary" not in str(error):
            raise
        return csr_matrix((len(texts), 1), dtype=np.float32)  # no text has a word: nothing is like anything


def blocks(left: Any, right: Any, floor: float) -> Iterator[tuple[IntArray, IntArray, IntArray, FloatArray]]:
    """Row-wise blocks of left @ right.T: (row numbers of the block, row in block, column, value >= floor)."""
    if not left.shape[0] or not right.shape[0]:
        return
    height = max(1, BLOCK_ENTRIES // right.shape[0])
    transposed = right.T.tocsr()
    for start in range(0, left.shape[0], height):
        product = (left[start : start + height] @ transposed).tocoo()
        keep = product.data >= floor
        rows = np.arange(start, min(start + height, left.shape[0]))
        yield rows, product.row[keep], product.col[keep], product.data[keep]


def top_per_row(row: IntArray, value: FloatArray, count: int) -> IntArray:
    """Positions of the `count` largest values of each row."""
    order = np.lexsort((-value, row))
    ordered = row[order]
    starts = np.searchsorted(ordered, ordered, side="left")
    return order[np.arange(len(ordered)) - starts < count]


def best_of_pairs(
    found: list[tuple[IntArray, IntArray, FloatArray]], count: int
) -> tuple[IntArray, IntArray, FloatArray]:
    """Distinct (item, document) pairs with their largest value, at most `count` an item."""
    frames = [pl.DataFrame({"item": i.astype(np.int64), "doc": d.astype(np.int64), "value": v}) for i, d, v in found]
    empty = pl.DataFrame(schema={"item": pl.Int64, "doc": pl.Int64, "value": pl.Float32})
    pairs = pl.concat([empty, *frames]).group_by("item", "doc").agg(pl.col("value").max())
    pairs = pairs.sort(["item", "value", "doc"], descending=[False, True, False])
    pairs = pairs.filter(pl.int_range(pl.len()).over("item") < count)
    return pairs["item"].to_numpy(), pairs["doc"].to_numpy(), pairs["value"].to_numpy()
