"""Blind sheets, what comes back, and Krippendorff's alpha against his own example."""

import csv
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from msmrec.artifacts import InputError
from msmrec.text.raters import (
    agreement,
    blind_sheet,
    krippendorff_alpha,
    mean_ratings,
    read_key,
    read_ratings,
    write_sheet,
)

ITEMS = pl.DataFrame({"item_id": pl.Series([1, 2, 3], dtype=pl.Int32), "title": ["Heat", "Fargo", "Big"]})
FIELDS = pl.DataFrame(
    {
        "item_id": pl.Series([1, 1, 1, 2], dtype=pl.Int32),
        "doc_id": ["item", "a", "a", "c"],
        "field": ["title", "title", "plot", "plot"],
        "value": ["Heat (1995)", "Heat", "A crew, of four.\nIt robs.", "x" * 20_000],
    }
)


def table(name: str, missing: tuple[int, ...] = ()) -> pl.DataFrame:
    rows = [
        (k, modality, "" if k in missing else f'{name}, "{modality}"\n{k}')
        for modality in ("set", "pace")
        for k in (1, 2, 3)
    ]
    return pl.DataFrame(rows, {"item_id": pl.Int32, "modality": pl.String, "text": pl.String}, orient="row")


TABLES = {"copied": table("one"), "written": table("two", missing=(3,))}


@pytest.fixture
def sheet(tmp_path: Path) -> tuple[Path, Path]:
    made, key = blind_sheet(TABLES, ITEMS, FIELDS, count=4)
    path = tmp_path / "sheet.csv"
    return path, write_sheet(path, made, key)


def fill(sheet: Path, target: Path, ratings: dict[str, tuple[str, str]], rater: str = "", delimiter: str = ",") -> Path:
    with sheet.open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    names = [*rows[0], *(["rater"] if rater else [])]
    with target.open("w", newline="") as file:
        writer = csv.DictWriter(file, names, delimiter=delimiter)
        writer.writeheader()
        for row in rows:
            factual, useful = ratings.get(row["row_id"], ("", ""))
            writer.writerow({**row, "factual": factual, "useful": useful, **({"rater": rater} if rater else {})})
    return target


def test_the_sheet_is_blind_complete_and_the_same_again() -> None:
    sheet, key = blind_sheet(TABLES, ITEMS, FIELDS, count=4, seed=3)
    assert sheet.columns == ["row_id", "title", "modality", "text", "evidence", "factual", "useful"]
    assert sheet["row_id"].to_list() == [f"r{k:04}" for k in range(1, 9)] == key["row_id"].to_list()
    assert not any(name in str(sheet.drop("text").rows()) for name in TABLES)
    assert key.group_by("generator").len().sort("generator").rows() == [("copied", 4), ("written", 4)]
    texts = pl.concat(frame.with_columns(generator=pl.lit(name)) for name, frame in TABLES.items())
    again = key.join(texts, on=["generator", "item_id", "modality"], maintain_order="left")
    assert again["text"].to_list() == sheet["text"].to_list()  # the key leads back to each text
    assert (
        sheet.join(key, on="row_id").filter(item_id=1)["evidence"][0] == "title: Heat\nplot: A crew, of four.\nIt robs."
    )
    assert sheet["evidence"].str.len_chars().max() < 8_100
    assert sheet.equals(blind_sheet(TABLES, ITEMS, FIELDS, count=4, seed=3)[0])
    orders = {tuple(blind_sheet(TABLES, ITEMS, FIELDS, count=4, seed=seed)[1]["generator"]) for seed in range(9)}
    assert len(orders) > 3
    with pytest.raises(InputError, match="5 items and modalities: 4 have"):
        blind_sheet(TABLES, ITEMS, FIELDS, count=5)


@pytest.mark.parametrize("delimiter", [",", ";"])
def test_filled_sheets_come_back(sheet: tuple[Path, Path], tmp_path: Path, delimiter: str) -> None:
    key = read_key(sheet[1])
    anna = fill(sheet[0], tmp_path / "anna.csv", {"r0001": ("5", "1"), "r0002": ("2", "")}, delimiter=delimiter)
    both = fill(sheet[0], tmp_path / "rest.csv", {"r0001": ("4,0", "2.0")}, rater="bo", delimiter=delimiter)
    ratings = read_ratings([anna, both], key)
    of = dict(key.rows())
    assert ratings.rows() == [
        ("r0001", "anna", of["r0001"], 5, 1),
        ("r0002", "anna", of["r0002"], 2, None),
        ("r0001", "bo", of["r0001"], 4, 2),
    ]


def test_mistakes_name_file_and_line(sheet: tuple[Path, Path], tmp_path: Path) -> None:
    path, key = sheet[0], read_key(sheet[1])
    bad = tmp_path / "bad.csv"

    def refused(content: str | bytes, match: str) -> None:
        bad.write_bytes(content if isinstance(content, bytes) else content.encode())
        with pytest.raises(InputError, match=match) as caught:
            read_ratings([bad], key)
        assert "\n" not in str(caught.value)

    head = "row_id,text,factual,useful\n"
    refused("row_id,factual\nr0001,3\n", r"bad\.csv:1: no column 'useful'")
    refused(f'{head}r0001,"two\nlines",3,3\nr9999,b,3,3\n', r"bad\.csv:4: row id 'r9999' is not in the key")
    for wrong in ("6", "0", "2.5", "good", "-1", "nan", "33"):
        refused(f"{head}r0001,a,3,{wrong}\n", rf"bad\.csv:2: useful '{wrong}'; ratings are whole numbers from 1 to 5")
    refused(f"{head}r0001,a,3,3\nr0001,a,3,3\n", r"bad\.csv:3: bad has rated r0001 at .*bad\.csv:2 already")
    refused(f"{head}r0001,a,3\n", r"bad\.csv:2: 3 cells under 4 columns")
    refused("row_id,rater,factual,useful\nr0001,,3,3\n", r"bad\.csv:2: no rater")
    refused(f"{head}r0001,a,,\n", "no row is rated")
    refused(f'{head}r0001,a"\r\r"b,3\r3,3\n', r"bad\.csv:\d+: ")
    refused("", r"bad\.csv:1: the file is empty")
    refused(b"row_id,factual,useful\nr0001,\xff,3\n", r"bad\.csv:2: not UTF-8")
    with pytest.raises(InputError, match="no such file"):
        read_ratings([tmp_path / "none.csv"], key)
    with pytest.raises(InputError, match=r"sheet\.csv:1: no column 'generator'"):
        read_key(path)


def test_alpha_is_krippendorffs_own() -> None:
    """Computing Krippendorff's Alpha-Reliability (2011), example C: four observers, twelve units, ordinal .815."""
    _ = np.nan
    values = [
        [1, 2, 3, 3, 2, 1, 4, 1, 2, _, _, _],
        [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, _, 3],
        [_, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, _],
        [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, _],
    ]
    assert krippendorff_alpha(np.array(values, float)) == pytest.approx(0.815, abs=5e-4)


def ratings(rows: list[tuple[str, str, str, int | None, int | None]]) -> pl.DataFrame:
    return pl.DataFrame(rows, ["row_id", "rater", "generator", "factual", "useful"], orient="row").cast(
        {"factual": pl.Int64, "useful": pl.Int64}
    )


def test_agreement_and_means() -> None:
    same = ratings([(f"r{k}", rater, "one", k % 3 + 1, 2) for k in range(6) for rater in "ab"])
    assert agreement(same).rows() == [("factual", 1.0, 2, 6), ("useful", None, 2, 6)]  # nothing but 2: not defined
    alone = ratings([("r1", "a", "one", 3, None), ("r2", "b", "two", 5, None)])
    assert agreement(alone).rows() == [("factual", None, 2, 0), ("useful", None, 0, 0)]
    mixed = ratings([("r1", "a", "one", 3, 1), ("r1", "b", "one", 4, None), ("r2", "a", "two", 1, 5)])
    assert mean_ratings(mixed).rows() == [("one", 2, 2, 3.5, 1.0), ("two", 1, 1, 1.0, 5.0)]
    assert agreement(mixed)["shared"].to_list() == [1, 0]
