"""Files of precomputed features, and texts as features."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from msmrec.artifacts import InputError
from msmrec.data.prepare import Dataset
from msmrec.media.feature_file import FeatureFile
from msmrec.media.features import Features
from msmrec.media.text import TextFeatures
from msmrec.text.encoder import TfidfSvdEncoder
from msmrec.text.item_text import ItemText


def raw(dataset: Dataset, *items: int) -> list[str]:
    return [str(dataset.items["raw_item_id"][i - 1]) for i in items]


def check(dataset: Dataset, features: Features) -> None:
    """Items 2 and 5 have (1, 2, 3) and (-0.5, 0, 4e3); the others nothing."""
    assert features.vectors.shape == (dataset.num_items + 1, 3) and features.vectors.dtype == np.float32
    assert features.present.nonzero()[0].tolist() == [2, 5]
    np.testing.assert_allclose(features.vectors[[2, 5]], [[1, 2, 3], [-0.5, 0, 4000]])
    assert not features.vectors[~features.present].any()


def test_layouts(tiny: Dataset, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    a, b = raw(tiny, 2, 5)
    rows = np.array([[1, 2, 3], [9, 9, 9], [-0.5, 0, 4e3]])
    ids = [a, "no such item", b]
    (tmp_path / "plain.csv").write_text(f"{a},1,2,3\nno such item,9,9,9\n{b},-0.5,0,4e3\n")
    (tmp_path / "header.csv").write_text(f"movieId,f1,f2,f3\r\n{a}, 1,2,3\r\nx,9,9,9\r\n{b}.0,-0.5,0,4e3\r\n")
    (tmp_path / "pandas.csv").write_text(f",0,1,2\n{a},1,2,3\nx,9,9,9\n{b},-0.5,0,4e3\n")
    (tmp_path / "index.csv").write_text(f"item_id,0,1,2\n{a},1,2,3\nx,9,9,9\n{b},-0.5,0,4e3\n")
    (tmp_path / "bom.csv").write_text(f"\ufeffid,f1,f2,f3\n{a},1,2,3\nx,9,9,9\n{b},-0.5,0,4e3\n")
    wide = pl.DataFrame({"raw_item_id": ids, "x": rows[:, 0], "y": rows[:, 1].astype(np.float32), "z": rows[:, 2]})
    wide.write_parquet(tmp_path / "wide.parquet")
    wide.select("x", "y", "z", "raw_item_id").write_parquet(tmp_path / "last.parquet")
    pl.DataFrame({"id": ids, "v": rows.tolist()}).write_parquet(tmp_path / "list.parquet")
    fixed = pl.DataFrame({"id": ids, "v": rows}, schema_overrides={"v": pl.Array(pl.Float64, 3)})
    fixed.write_parquet(tmp_path / "array.parquet")
    np.save(tmp_path / "rows.npy", rows)
    (tmp_path / "ids.txt").write_text("\n".join(ids) + "\n")
    cases = [(name, {}) for name in ("plain.csv", "header.csv", "pandas.csv", "bom.csv", "wide.parquet")]
    cases += [("list.parquet", {}), ("array.parquet", {}), ("last.parquet", {"id_column": "raw_item_id"})]
    cases += [("rows.npy", {"ids": "ids.txt"}), ("index.csv", {"id_column": "item_id"})]
    for name, options in cases:
        check(tiny, FeatureFile(name, **options).vectors(tiny, tmp_path, tmp_path / "cache"))
        assert f"2 of {tiny.num_items} items have a row; 1 rows are of no item" in caplog.text, name
        caplog.clear()


def test_files_that_are_refused(tiny: Dataset, tmp_path: Path) -> None:
    a, b = raw(tiny, 2, 5)
    texts = {
        "empty.csv": ("", "cannot be read"),
        "ids.csv": (f"{a}\n{b}\n", "no id column"),
        "twice.csv": (f"{a},1,2\n{b},3,4\n{a},5,6\n", f"item {a} stands there twice"),
        "hole.csv": (f"{a},1,2\n{b},3,\n", f"item {b} has a missing or infinite value in feature 2"),
        "nan.csv": (f"{a},1,2\n{b},nan,4\n", f"item {b} has a missing or infinite value in feature 1"),
        "inf.csv": (f"{a},1,2\n{b},3,1e39\n", f"item {b} has a missing or infinite value in feature 2"),
        "word.csv": (f"id,f,g\n{a},1,2\n{b},3,four\n", f"column 'g' holds 'four', no number, for item {b}"),
        "na.csv": (f"{a},1,NA\n{b},3,4\n", f"holds 'NA', no number, for item {a}"),
        "null.csv": (f"{a},null,None\n{b},3,4\n", f"holds 'null', no number, for item {a}"),
        "long.csv": (f"{a},1,2\n{b},3,4,5\n", "cannot be read"),
        "short.csv": (f"{a},1,2\n{b},3\n", f"item {b} has a missing"),
        "noid.csv": (f"id,f\n{a},1\n,2\n", "no item id in data row 2"),
        "foreign.csv": ("zz,1,2\nyy,3,4\n", "none of its 2 ids"),
        "semicolon.csv": (f"{a};1;2\n{b};3;4\n", "no id column"),
    }
    for name, (text, message) in texts.items():
        (tmp_path / name).write_text(text)
        refused(tiny, tmp_path, message, name)
    pl.DataFrame({"id": [a, b], "v": [[1.0, 2], [3.0]]}).write_parquet(tmp_path / "ragged.parquet")
    refused(tiny, tmp_path, f"item {b} has 1 numbers, item {a} 2", "ragged.parquet")
    pl.DataFrame({"id": [a, b], "v": [True, False]}).write_parquet(tmp_path / "bool.parquet")
    refused(tiny, tmp_path, "leave only numbers", "bool.parquet")
    pl.DataFrame({"id": [a, b], "v": [1, 2]}).write_parquet(tmp_path / "good.parquet")
    refused(tiny, tmp_path, "no id column 'raw'", "good.parquet", id_column="raw")
    (tmp_path / "damaged.parquet").write_bytes((tmp_path / "good.parquet").read_bytes()[:-9])
    refused(tiny, tmp_path, "cannot be read", "damaged.parquet")
    (tmp_path / "ids.txt").write_text(f"{a}\n{b}\n")
    (tmp_path / "gap.txt").write_text(f"{a}\n\n")
    for shape, message in {(3, 2): "has 3 rows, .* has 2 ids", (2,): "give a matrix", (2, 0): "give a matrix"}.items():
        np.save(tmp_path / "rows.npy", np.ones(shape))
        refused(tiny, tmp_path, message, "rows.npy", ids="ids.txt")
    np.save(tmp_path / "rows.npy", np.ones((2, 2)))
    refused(tiny, tmp_path, "empty line", "rows.npy", ids="gap.txt")
    refused(tiny, tmp_path, "neither in the data root", "rows.npy", ids="nowhere.txt")
    np.save(tmp_path / "rows.npy", np.array([{}, {}]), allow_pickle=True)
    refused(tiny, tmp_path, "cannot be read", "rows.npy", ids="ids.txt")
    for path, ids in (("a.txt", None), ("a.npy", None), ("a.csv", "ids.txt")):
        with pytest.raises(InputError):
            FeatureFile(path, ids)


def refused(dataset: Dataset, root: Path, message: str, path: str, **options: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        FeatureFile(path, **options).vectors(dataset, root, root / "cache")
    assert "\n" not in str(caught.value), path


def test_texts_are_joined_and_encoded(tiny: Dataset, tiny_root: Path, cache: Path) -> None:
    text = ItemText([str(next(tiny_root.glob("simulated*/knowledge.jsonl")))], encoder=TfidfSvdEncoder(8))
    features = TextFeatures(text)
    joined = features.joined(tiny, tiny_root, cache)
    assert len(joined) == tiny.num_items + 1 and joined[0] == ""
    texts = text.texts(tiny, tiny_root, cache)
    for item in (1, 7):
        row = tiny.items.row(item - 1, named=True)
        mine = texts.filter((pl.col("item_id") == item) & (pl.col("text") != ""))["text"].to_list()
        parts = [row["title"], ", ".join(row["genres"]), " ".join(mine)]
        assert joined[item] == ". ".join(part for part in parts if part)
    vectors, present = features.vectors(tiny, tiny_root, cache)
    assert vectors.shape == (tiny.num_items + 1, 8) and present[1:].all() and not present[0]
    np.testing.assert_allclose(np.linalg.norm(vectors[1:], axis=1), 1, atol=1e-5)
