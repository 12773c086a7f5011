"""The Book-Crossing reader: the dump's own dirt, and its counts."""

from pathlib import Path

import pytest

from msmrec.artifacts import InputError
from msmrec.columns import LINE, MILLISECONDS
from msmrec.data.prepare import SplitProtocol, prepare
from msmrec.data.sources.bookcrossing import BookCrossing

COVERS = '"http://a/S.jpg";"http://a/M.jpg";"http://a/L.jpg"'
FILES = {
    "BX-Book-Ratings.csv": [
        '"User-ID";"ISBN";"Book-Rating"', '"2";"A";"0"', '"1";"A";"5"', '"1";"B";"10"', '"1";"C";"11"', '"1";"C"',
        '"1";"C";"3";"4"', '"x";"C";"3"', '"3";"\\"D";"7"',
    ],
    "BX-Books.csv": [
        '"ISBN";"Book-Title";"Book-Author";"Year-Of-Publication";"Publisher";"S";"M";"L"',
        f'"A";"Black &amp; \\"White\\"; Cats";"Jos\xc3\xa9 "Pepe" Cela";"1992";"Simon &amp; Schuster";{COVERS}',
        f'"B";"Creating the X-Men (Level 4)\\"";"";"0";"M\xfcller &amp; DK";{COVERS}',
        f'"C";"One";"Two";"Three";"1999";"P";{COVERS}', '"D";"Cut',
        f'"\\"D";"Later";"Au";"2050";"P";{COVERS}',
    ],
    "BX-Users.csv": [
        '"User-ID";"Location";"Age"', '"1";"zurich, \\\\\\"n/a\\\\, switzerland";NULL',
        '"2";"nyc, new york, usa";"239"',
        '"3";"leeds, , england";"34"', '"4";"weston, , ";"14"',
    ],
}  # fmt: skip


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "book-crossing"
    folder.mkdir()
    for name, lines in FILES.items():
        (folder / name).write_bytes(("\r\n".join(lines) + "\r\n").encode("latin-1"))
    return tmp_path


def test_the_dumps_dirt(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    raw = BookCrossing(max_bad_share=0.5).read(root)
    rows = raw.interactions.drop(LINE, MILLISECONDS).rows()
    assert rows == [
        (2, "A", 0, 0),
        (1, "A", 5, 1),
        (1, "B", 10, 2),
        (3, '"D', 7, 5),
    ]
    assert dict(raw.refused) == {
        "too few fields": 1, "too many fields": 1, "no user": 1, "a rating outside 0 to 10": 1,
    }  # fmt: skip
    books = {row["raw_item_id"]: row for row in raw.items.iter_rows(named=True)}
    assert list(books) == ["A", "B", '"D']
    assert books["A"]["title"] == 'Black & "White"; Cats' and books["A"]["publisher"] == "Simon & Schuster"
    assert books["A"]["author"] == 'José "Pepe" Cela'
    assert (books["A"]["year"], books["A"]["period"]) == (1992, "1990s")
    assert books["B"]["title"] == 'Creating the X-Men (Level 4)"' and books["B"]["author"] is None
    assert books["B"]["publisher"] == "Müller & DK"
    assert books["B"]["year"] is None and books['"D']["period"] is None  # 0 and 2050
    assert raw.users.rows() == [
        (1, "Switzerland", None), (2, "USA", None), (3, "United Kingdom", "25-34"), (4, None, "under 18")
    ]  # fmt: skip
    told = capsys.readouterr().out
    assert "BX-Book-Ratings.csv: of 8 rows left out 1 with too few fields (line 6)" in told
    assert "BX-Books.csv: of 5 rows left out 1 with too few fields (line 5), 1 with too many fields (line 4)" in told
    assert "1 with an implausible age" in told


def test_too_much_dirt_stops(root: Path) -> None:
    with pytest.raises(InputError, match=r"BX-Book-Ratings\.csv: 4 of 8 rows cannot be read"):
        BookCrossing().read(root)
    (root / "book-crossing" / "BX-Users.csv").unlink()
    with pytest.raises(InputError, match=r"no BX-Users\.csv; put"):
        BookCrossing().read(root)


def test_order(root: Path) -> None:
    shuffled = BookCrossing("shuffled", 0.5)
    assert shuffled.fingerprint(root) != BookCrossing(max_bad_share=0.5).fingerprint(root)
    times = shuffled.read(root).interactions["timestamp"]
    assert times.to_list() != sorted(times) and sorted(times) == [0, 1, 2, 3]


def test_the_real_dump(real_data: Path, tmp_path: Path) -> None:
    if not (real_data / "book-crossing").is_dir():
        pytest.skip("no book-crossing/ in the real data")
    data = prepare(BookCrossing(), real_data, tmp_path, SplitProtocol(min_user_count=0, min_item_count=0))
    assert (data.info["rows_in_file"], data.num_users, data.num_items) == (266_589, 50_163, 27_349)
    assert data.info["num_interactions"] == 266_589 and "rows_left_out" not in data.info
    assert data.users["country"].null_count() > 1_276  # users without a profile, and some without a country
    isbn = data.items["raw_item_id"].to_numpy()[data.item_id - 1]
    assert (isbn[1:] > isbn[:-1])[data.user_id[1:] == data.user_id[:-1]].all()  # why there is a shuffled order
