"""The Amazon reader: three releases, ratings-only files, metadata as it is, and real counts."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from msmrec.artifacts import InputError
from msmrec.columns import LINE, MILLISECONDS
from msmrec.data.prepare import SplitProtocol, prepare
from msmrec.data.sources.amazon import Amazon, Release

ROWS = [("U1", "I1", 5.0, 1_100_000_000), ("U2", "I1", 1.0, 1_200_000_000), ("U1", "I2", 3.0, 1_300_000_000)]


def folder(root: Path, release: str) -> Path:
    path = root / "amazon" / f"Toys_{release}"
    path.mkdir(parents=True, exist_ok=True)
    return path


def put(path: Path, lines: list[str]) -> None:
    text = "".join(line + "\n" for line in lines)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())


def review(release: str, user: str, item: str, rating: float, time: int) -> dict[str, Any]:
    if release == "2023":
        return {"rating": rating, "asin": "variant", "parent_asin": item, "user_id": user, "timestamp": time * 1000}
    return {"reviewerID": user, "asin": item, "overall": rating, "reviewText": "it's 5\"", "unixReviewTime": time}


@pytest.mark.parametrize(
    ("release", "name"),
    [
        ("2014", "reviews_Toys_5.json.gz"), ("2014", "reviews_Toys.json"), ("2018", "Toys_5.json.gz"),
        ("2018", "Toys.json.gz"), ("2023", "Toys.jsonl.gz"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("write", [json.dumps, repr])
def test_reviews(tmp_path: Path, release: Release, name: str, write: Any) -> None:
    put(folder(tmp_path, release) / name, [write(review(release, *row)) for row in ROWS])
    raw = Amazon("Toys", release).read(tmp_path)
    assert raw.interactions.drop(LINE, MILLISECONDS).rows() == ROWS
    assert raw.items.is_empty()


@pytest.mark.parametrize(
    ("release", "name", "lines"),
    [
        ("2014", "ratings_Toys.csv", [f"{u},{i},{r},{t}" for u, i, r, t in ROWS]),
        ("2018", "Toys.csv", [f"{i},{u},{r},{t}" for u, i, r, t in ROWS]),
        ("2023", "Toys.csv.gz", 
         ["user_id,parent_asin,rating,timestamp", *(f"{u},{i},{r},{t}000" for u, i, r, t in ROWS)]),
    ],
)  # fmt: skip
def test_ratings_only(tmp_path: Path, release: Release, name: str, lines: list[str]) -> None:
    put(folder(tmp_path, release) / name, lines)
    assert Amazon("Toys", release).read(tmp_path).interactions.drop(LINE, MILLISECONDS).rows() == ROWS
    put(folder(tmp_path, release) / name, [*lines, "a,b,c", "U9,I9,9.0,1100000000"])
    raw = Amazon("Toys", release, max_bad_share=0.5).read(tmp_path)
    assert raw.interactions.drop(LINE, MILLISECONDS).rows() == ROWS
    assert dict(raw.refused) == {"not four fields": 1, "a rating outside 1 to 5": 1}
    with pytest.raises(InputError, match=r"2 of \d rows cannot be read"):
        Amazon("Toys", release).read(tmp_path)


def test_metadata_of_2014_and_2018_and_2023(tmp_path: Path) -> None:
    place = folder(tmp_path, "2018")
    put(place / "Toys.json.gz", [json.dumps(review("2018", f"U{k}", f"I{k}", 4.0, 10**9)) for k in range(1, 6)])
    metadata = [
        repr({"asin": "I1", "title": "It's a &amp;quot;Bear&amp;quot;",
              "categories": [["Toys", "Bears"], ["Toys", "Soft"]]}),
        json.dumps({"asin": "I2", "title": "var aPageStart = (new Date()).getTime();",
                    "category": ["Toys", "</span>", "Cars"], "description": ["<p>Fast.</p>", ""],
                    "feature": ["Red", "Four wheels, one key"], "brand": ""}),
        json.dumps({"parent_asin": "I3", "asin": "v", "title": "Kite (1999)", "categories": [], "features": [],
                    "description": [], "store": "Wind Co", "average_rating": 4.9, "rating_number": 7}),
        json.dumps({"asin": "I4", "title": None, "actors": "[Ann B, Bob C]", "directors": ["Di R"],
                    "release_date": "2008-01-02"}),
        json.dumps({"asin": "I9", "title": "nobody reviewed it"}), "{broken", json.dumps({"title": "no id"}),
        json.dumps({"asin": ["I1"], "title": "a list of ids"}),
        json.dumps({"asin": "I1", "title": "again"}),
    ]  # fmt: skip
    put(place / "meta_Toys.json.gz", metadata)
    raw = Amazon("Toys", "2018", max_bad_share=0.5).read(tmp_path)
    items = {row["raw_item_id"]: row for row in raw.items.iter_rows(named=True)}
    assert list(items) == ["I1", "I2", "I3", "I4"] and "average_rating" not in raw.items.columns
    assert items["I1"]["title"] == 'It\'s a "Bear"' and items["I1"]["genres"] == ["Bears", "Soft"]
    assert items["I2"]["title"] is None and items["I2"]["genres"] == ["Cars"] and items["I2"]["description"] == "Fast."
    assert items["I2"]["features"] == ["Red", "Four wheels, one key"] and items["I2"]["brand"] is None
    assert (items["I3"]["brand"], items["I3"]["year"], items["I3"]["features"]) == ("Wind Co", 1999, None)
    assert items["I4"]["actors"] == ["Ann B", "Bob C"] and items["I4"]["released"] == "2008"
    with pytest.raises(InputError, match=r"meta_Toys\.json\.gz: 3 of 9 rows cannot be read"):
        Amazon("Toys", "2018").read(tmp_path)


def test_what_is_missing_or_ambiguous_is_said_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"put one of Toys_5\.json, Toys\.json, Toys\.csv there") as caught:
        Amazon("Toys", "2018").read(tmp_path)
    assert "\n" not in str(caught.value)
    for name in ("Toys_5.json.gz", "Toys.csv"):
        put(folder(tmp_path, "2018") / name, [])
    with pytest.raises(InputError, match=r"Toys_5\.json\.gz and Toys\.csv; say which by source\.reviews"):
        Amazon("Toys", "2018").read(tmp_path)
    with pytest.raises(InputError, match=r"Toys\.csv: empty"):
        Amazon("Toys", "2018", reviews="Toys.csv").read(tmp_path)
    put(folder(tmp_path, "2018") / "Toys_5.json", [])  # beside the same, gzipped
    with pytest.raises(InputError, match=r"Toys_5\.json and Toys_5\.json\.gz and Toys\.csv; say which"):
        Amazon("Toys", "2018").read(tmp_path)
    for name in ("Toys_5.json", "Toys_5.json.gz"):
        assert Amazon("Toys", "2018", reviews=name).files(tmp_path)[0].name == name


@pytest.mark.parametrize(
    ("source", "users", "items", "rows", "kept"),
    [
        (Amazon("Movies_and_TV"), 2_579, 3_107, 57_019, 57_019),
        (Amazon("Musical_Instruments"), 1_429, 900, 10_261, 10_261),
        (Amazon("Gift_Cards", "2018"), 458, 148, 2_972, 2_965),  # seven reviews come twice
    ],
)
def test_real_counts(
    real_data: Path, tmp_path: Path, source: Amazon, users: int, items: int, rows: int, kept: int
) -> None:
    if not (real_data / "amazon" / source.name).is_dir():
        pytest.skip(f"no amazon/{source.name} in the real data")
    protocol = SplitProtocol(min_user_count=0, min_item_count=0, duplicates="last")
    data = prepare(source, real_data, tmp_path, protocol)
    assert (data.num_users, data.num_items, data.info["rows_in_file"]) == (users, items, rows)
    assert data.info["num_interactions"] == kept
