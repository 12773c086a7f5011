"""Datasets of the hub, read by the real library from a folder laid out as a repository."""

from pathlib import Path

import polars as pl
import pytest

from msmrec.artifacts import InputError
from msmrec.columns import LINE, MILLISECONDS
from msmrec.data.interactions import encode
from msmrec.data.sources.hub import HubTable

pytest.importorskip("datasets", reason="no datasets: pip install 'msmrec[hub]'")

CARD = """---
configs:
- config_name: ratings
  data_files: [{split: full, path: ratings.jsonl}]
- config_name: books
  data_files: [{split: train, path: books.jsonl}]
---
"""
ROWS = [(1, "a", 4.0, 10**9), (1, "b", 2.0, 10**9 + 5), (2, "a", 5.0, 10**9 + 9)]


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "hf")
    folder = tmp_path / "shop"
    folder.mkdir()
    (folder / "README.md").write_text(CARD)
    frame = pl.DataFrame(ROWS, schema=["user_id", "asin", "rating", "timestamp"], orient="row")
    frame.write_ndjson(folder / "ratings.jsonl")
    books = [{"asin": "a", "title": "The first", "genres": ["x", "y"]}, {"asin": "b", "title": "The second"}]
    pl.DataFrame(books).write_ndjson(folder / "books.jsonl")
    return folder


def test_a_dataset_of_the_hub_is_a_table(repository: Path, tmp_path: Path) -> None:
    source = HubTable(f"{repository}:ratings:full", items=f"{repository}:books", item="asin")
    root = tmp_path / "root"
    raw = source.read(root)
    rows = raw.interactions.drop(LINE, MILLISECONDS).rows()
    assert source.name == "shop" and rows == [(str(u), i, r, t) for u, i, r, t in ROWS]
    items = encode(raw).items
    assert items["title"].to_list() == ["The first", "The second"] and items["genres"].to_list() == [["x", "y"], []]
    files = sorted((root / "hub").glob("*.parquet"))
    assert len(files) == 2
    before = source.fingerprint(root)
    (repository / "ratings.jsonl").unlink()  # it is fetched once
    assert source.fingerprint(root) == before and len(source.read(root).interactions) == 3


def test_what_is_not_there_is_one_line_and_leaves_nothing(repository: Path, tmp_path: Path) -> None:
    for name in (f"{repository}:raitings:full", f"{repository}:ratings:test", f"{tmp_path}/nowhere"):
        with pytest.raises(InputError, match="not to be had from the Hugging Face hub") as caught:
            HubTable(name, item="asin").read(tmp_path / "root")
        assert "\n" not in str(caught.value)
    assert not list((tmp_path / "root").rglob("*.parquet"))
