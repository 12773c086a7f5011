"""Items described from their own columns, and MovieLens's described as before."""

from pathlib import Path
from typing import Any

import polars as pl
import pytest
import yaml

from msmrec.arguments import CONFIGS
from msmrec.artifacts import InputError
from msmrec.data.interactions import encode
from msmrec.data.prepare import Dataset, SplitProtocol, prepare
from msmrec.data.sources.amazon import Amazon
from msmrec.data.sources.bookcrossing import BookCrossing
from msmrec.data.sources.movielens import MovieLens
from msmrec.models.fields import default_fields
from msmrec.retrieval.prompts import Prompts, PromptTemplate
from msmrec.text.describe import item_document
from msmrec.text.item_text import ItemText
from msmrec.text.modalities import check_schema
from msmrec.text.schemas import SCHEMAS


def as_before(item: dict[str, Any]) -> dict[str, str]:
    """What a film's own document was when only these columns were read."""
    fields = {"doc_id": "item", "title": item["title"], "genres": ", ".join(item.get("genres") or [])}
    if item.get("year") is not None:
        fields["year"] = str(item["year"])
    return {key: value for key, value in fields.items() if value}


@pytest.mark.parametrize("release", ["ml-100k", "ml-1m"])
def test_movielens_documents_are_unchanged(real_data: Path, release: Any) -> None:
    raw = MovieLens(release).read(real_data)
    for item in encode(raw).items.with_columns(tier=pl.lit("head"), count=3).to_dicts():
        document = item_document(item)
        assert document == as_before(item) and list(document) == list(as_before(item))


def test_every_column_of_words_is_a_field() -> None:
    item = {
        "item_id": 3, "raw_item_id": "B3", "title": "Dune", "year": 1965, "genres": [], "author": "F. Herbert",
        "publisher": None, "pages": 412, "features": ["long, very", "sandy"], "actors": ["A", "B"], "tier": "head",
    }  # fmt: skip
    assert item_document(item) == {
        "doc_id": "item", "title": "Dune", "year": "1965", "author": "F. Herbert", "features": "long, very | sandy",
        "actors": "A, B",
    }  # fmt: skip


def test_schemas() -> None:
    for schema in SCHEMAS.values():
        check_schema(schema)
    with pytest.raises(InputError, match=r"or set text\.metadata_only"):
        ItemText([])
    with pytest.raises(InputError, match="leave out one of them"):
        ItemText(["a.jsonl"], metadata_only=True)


def described(data: Dataset, schema: Any, cache: Path) -> dict[str, dict[str, str]]:
    texts = ItemText([], modalities=schema, metadata_only=True).texts(data, Path("unused"), cache)
    titles = dict(data.items.select("item_id", "title").iter_rows())
    found: dict[str, dict[str, str]] = {}
    for item, modality, text in texts.select("item_id", "modality", "text").iter_rows():
        found.setdefault(titles[item], {})[modality] = text
    return found


CLICKS = SplitProtocol(5, 5, "global_time", min_history=5)


@pytest.mark.parametrize(
    ("source", "schema", "config", "title", "texts"),
    [
        (
            BookCrossing("shuffled"), "books", "rallrec_tiny_bookcrossing.yaml", "Airframe",
            {"title": "Title: Airframe.", "plot": "", "author": "Written by: Michael Crichton.",
             "publisher": "Published by: Ballantine Books.", "period": "Published in: 1997. From the: 1990s."},
        ),
        (
            Amazon("Movies_and_TV"), "products", "rallrec_tiny_movies_and_tv.yaml", "The Incredible Hulk [Blu-ray]",
            {"title": "Title: The Incredible Hulk [Blu-ray].", "category": "Category: Action & Adventure.",
             "description": "", "brand": "Brand: NORTON,EDWARD. Studio: Universal Studios Home Entertainment."},
        ),
    ],
)  # fmt: skip
def test_real_items_are_described_from_their_own_columns(
    real_data: Path, cache: Path, source: Any, schema: Any, config: str, title: str, texts: dict[str, str]
) -> None:
    try:
        data = prepare(source, real_data, cache, CLICKS)
    except InputError as error:
        pytest.skip(str(error))
    found = described(data, schema, cache)[title]
    assert found.items() >= texts.items()
    words = yaml.safe_load((CONFIGS / config).read_text())["model"]["init_args"]["prompt"]
    prompts = Prompts(data, PromptTemplate(**words))
    assert len(prompts.heads) == data.num_users + 1 and len(prompts.tails) == data.num_items + 1
    assert not any(part.endswith("by None\n") for part in (*prompts.entries, *prompts.tails))
    nameless = [column for column in ("directors",) if column in data.items.columns]
    for item in data.items.filter(pl.any_horizontal(pl.col(nameless).is_null()))["item_id"] if nameless else []:
        assert prompts.tails[item].endswith("by unknown\n")


def test_prose_is_no_field() -> None:
    items = pl.DataFrame(
        {
            "item_id": [1, 2],
            "title": ["a", "b"],
            "brand": ["x", "x"],
            "description": ["d", "d"],
            "features": [["f"], ["f"]],
        }
    )
    assert default_fields(items) == ["item_id", "brand"]
