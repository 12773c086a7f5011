"""A table of one's own: CSV and Parquet, column names, dates, dirt."""

import gzip
from datetime import date, datetime
from pathlib import Path

import polars as pl
import pytest

from msmrec.artifacts import InputError
from msmrec.columns import LINE, MILLISECONDS
from msmrec.data.interactions import as_text, encode
from msmrec.data.sources.table import Table

CSV = "who,what,stars,when\n01,a,4,2001-09-09\n01,b,3.5,2001-09-10\n2,a,1,2001-09-09 00:00:10\n"
NAMES = {"user": "who", "item": "what", "rating": "stars", "timestamp": "when"}
DAY = 999_993_600


def test_csv_with_items_and_users(tmp_path: Path) -> None:
    (tmp_path / "shop.csv").write_text(CSV)
    (tmp_path / "things.csv").write_text('what,name,kind,pages,maker\na,"A, the first",x|y,12,Ann\nb,B,,,"Bob, Co"\n')
    pl.DataFrame({"who": ["01", "2"], "town": ["Rome", None]}).write_parquet(tmp_path / "people.parquet")
    source = Table("shop.csv", items="things.csv", users="people.parquet", title="name", genres="kind", **NAMES)
    assert source.name == "shop"
    raw = source.read(tmp_path)
    expected = [("01", "a", 4.0, DAY), ("01", "b", 3.5, DAY + 86_400), ("2", "a", 1.0, DAY + 10)]
    assert raw.interactions.drop(LINE, MILLISECONDS).rows() == expected
    items = encode(raw).items
    assert items["title"].to_list() == ["A, the first", "B"] and items["genres"].to_list() == [["x", "y"], []]
    assert items["pages"].to_list() == [12, None] and items["maker"].to_list() == ["Ann", "Bob, Co"]
    assert encode(raw).users["town"].to_list() == ["Rome", None]


def test_parquet_without_ratings_or_times(tmp_path: Path) -> None:
    pl.DataFrame({"user_id": [7, 7, 8], "item_id": [1, 2, 1]}).write_parquet(tmp_path / "t.parquet")
    raw = Table("t.parquet", rating=None, timestamp=None).read(tmp_path)
    rows = raw.interactions.drop(LINE, MILLISECONDS).rows()
    assert rows == [
        ("7", "1", 1.0, 0),
        ("7", "2", 1.0, 1),
        ("8", "1", 1.0, 2),
    ]


def test_a_column_that_is_not_named_gives_way(tmp_path: Path) -> None:
    """A file may have `rating` and `title` beside the columns that are meant."""
    frame = pl.DataFrame({"user_id": [7, 8], "item_id": [1, 1], "rating": [1, 2], "stars": [4, 5]})
    frame = frame.with_columns(timestamp=pl.lit(10**9), raw_user_id=pl.lit("x"))
    frame.write_parquet(tmp_path / "t.parquet")
    frame.write_csv(tmp_path / "t.csv")
    (tmp_path / "items.csv").write_text("item_id,title,name\n1,Miss,Anna\n")
    for name in ("t.parquet", "t.csv"):
        source = Table(name, rating="stars", items="items.csv", title="name")
        raw = source.read(tmp_path)
        assert raw.interactions.drop(LINE, MILLISECONDS).rows() == [("7", "1", 4.0, 10**9), ("8", "1", 5.0, 10**9)]
        assert raw.items.rows(named=True) == [{"raw_item_id": "1", "title": "Anna"}]
        swapped = Table(name, rating="timestamp", timestamp="rating").read(tmp_path)
        assert swapped.interactions.drop(LINE, MILLISECONDS).rows() == [("7", "1", 1e9, 1), ("8", "1", 1e9, 2)]


def test_null_switches_a_column_off_that_is_there(tmp_path: Path) -> None:
    pl.DataFrame({"user_id": [7, 8], "item_id": [1, 1], "rating": [1, 2], "timestamp": [10**9, 9]}).write_csv(
        tmp_path / "t.csv"
    )
    source = Table("t.csv", rating=None, timestamp=None)
    rows = source.read(tmp_path).interactions.drop(LINE, MILLISECONDS).rows()
    assert rows == [
        ("7", "1", 1.0, 0),
        ("8", "1", 1.0, 1),
    ]


def test_titles_and_genres_are_text_whatever_they_look_like(tmp_path: Path) -> None:
    pl.DataFrame({"user_id": [7, 8], "item_id": [1, 2], "rating": [1, 2]}).write_csv(tmp_path / "t.csv")
    (tmp_path / "empty.csv").write_text("item_id,genres,title,maker\n1,,,\n2,,,\n")
    (tmp_path / "numbers.csv").write_text("item_id,kind,name,pages\n1,12,1984,9\n2,7,007,10\n")
    words = pl.DataFrame({"item_id": [1, 2], "genres": ["a|b", None], "title": ["A", "B"]})
    words.with_columns(pl.col("genres", "title").cast(pl.Categorical)).write_parquet(tmp_path / "words.parquet")
    lists = pl.DataFrame({"item_id": [1, 2], "genres": [["a", "b"], None], "title": [1, 2]})
    lists.with_columns(pl.col("genres").cast(pl.List(pl.Enum(["a", "b"])))).write_parquet(tmp_path / "lists.parquet")
    for name, titles, genres in (
        ("empty.csv", ["1", "2"], [[], []]),  # the raw ids
        ("numbers.csv", ["1984", "007"], [["12"], ["7"]]),
        ("words.parquet", ["A", "B"], [["a", "b"], []]),
        ("lists.parquet", ["1", "2"], [["a", "b"], []]),
    ):
        named = {"title": "name", "genres": "kind"} if name == "numbers.csv" else {}
        items = encode(Table("t.csv", timestamp=None, items=name, **named).read(tmp_path)).items
        assert items["title"].to_list() == titles and items["genres"].to_list() == genres
        assert items["genres"].dtype == pl.List(pl.String)
        if name == "empty.csv":
            assert items["maker"].dtype == pl.String
        if name == "numbers.csv":
            assert items["pages"].to_list() == [9, 10]


@pytest.mark.parametrize("times", [[10**9, 10**9 + 1], [10**12, 10**12 + 1000]])
def test_seconds_and_milliseconds(tmp_path: Path, times: list[int]) -> None:
    frame = pl.DataFrame({"user_id": [7, 8], "item_id": [1, 1], "rating": [1, 2], "timestamp": times})
    frame.write_parquet(tmp_path / "t.parquet")
    frame.write_csv(tmp_path / "t.csv")
    for name in ("t.parquet", "t.csv"):
        assert Table(name).read(tmp_path).interactions["timestamp"].to_list() == [10**9, 10**9 + 1]


def test_a_tab_may_be_written_as_on_a_command_line(tmp_path: Path) -> None:
    (tmp_path / "t.tsv.csv").write_text(CSV.replace(",", "\t"))
    for tab in ("\t", r"\t"):
        assert len(Table("t.tsv.csv", separator=tab, **NAMES).read(tmp_path).interactions) == 3


@pytest.mark.parametrize("date", ["01/03/2023", "1.3.2023", "25-12-2023 10:00"])
def test_dates_whose_order_is_unclear_are_refused(tmp_path: Path, date: str) -> None:
    """Days up to the twelfth would be read as months without a word."""
    (tmp_path / "t.csv").write_text(CSV + f"3,a,1,{date}\n")
    with pytest.raises(InputError, match=f"{date}.*write dates as YYYY-MM-DD"):
        Table("t.csv", **NAMES).read(tmp_path)


def test_wrong_separators_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "t.csv").write_text(CSV + "3,a,1,2001-09-09,9\n3;b;1\n3,b,x,2001-09-09\n3,c,2,soon\n")
    raw = Table("t.csv", max_bad_share=0.6, **NAMES).read(tmp_path)
    assert len(raw.interactions) == 3 and sum(raw.refused.values()) == 4
    told = capsys.readouterr().out
    assert "of 7 rows left out 1 with too many fields (line 5), 1 with no item (line 6)" in told
    with pytest.raises(InputError, match=r"4 of 7 rows cannot be read, more than max_bad_share 0\.01"):
        Table("t.csv", **NAMES).read(tmp_path)


def test_a_byte_order_mark_is_no_part_of_a_name(tmp_path: Path) -> None:
    for more in ("", "3,a,1,2001-09-09,9\n"):  # as a table, and line by line
        (tmp_path / "t.csv").write_text(CSV + more, encoding="utf-8-sig")
        assert len(Table("t.csv", max_bad_share=0.5, **NAMES).read(tmp_path).interactions) == 3


@pytest.mark.parametrize("again", ["", '9,"a,2,2001-09-09\n'])
def test_every_line_that_a_quote_swallows_is_counted(
    tmp_path: Path, again: str, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [f"{k},a,4,2001-09-09\n" for k in range(10)]
    lines[3] = lines[3].replace("3,a", '3,"a')
    (tmp_path / "t.csv").write_text("".join(["who,what,stars,when\n", *lines, again]))
    with pytest.raises(InputError, match=r"with a quote out of place \(lines 5, 6, 7, \.\.\.\)"):
        Table("t.csv", max_bad_share=0.5, **NAMES).read(tmp_path)
    raw = Table("t.csv", max_bad_share=0.9, **NAMES).read(tmp_path)
    assert len(raw.interactions) + sum(raw.refused.values()) == len(lines) + bool(again)
    capsys.readouterr()


def test_letters_of_another_encoding_are_refused(tmp_path: Path) -> None:
    """Read as one letter for all that are unknown, two users would be one."""
    (tmp_path / "t.csv").write_bytes((CSV + "ä,a,3,2001-09-09\nö,b,3,2001-09-09\n").encode("latin-1"))
    raw = Table("t.csv", max_bad_share=0.5, **NAMES).read(tmp_path)
    assert raw.refused == {"letters that are not in UTF-8": 2} and len(raw.interactions) == 3
    for content in (
        CSV.encode("utf-16"),
        b"PK\3\4\xff\xfe" + bytes(range(256)),
    ):  # as Excel saves "Unicode text"; .xlsx
        (tmp_path / "t.csv").write_bytes(content)
        with pytest.raises(InputError, match="line 1: no text in UTF-8"):
            Table("t.csv", **NAMES).read(tmp_path)


def test_a_gzip_that_was_cut_short_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "t.csv.gz").write_bytes(gzip.compress(CSV.encode())[:-9])
    with pytest.raises(InputError, match=r"t\.csv\.gz: cannot be unpacked .*; fetch it again"):
        Table("t.csv.gz", **NAMES).read(tmp_path)


def test_columns_of_parquet_that_are_text_by_another_name(tmp_path: Path) -> None:
    frame = pl.DataFrame({"who": [b"a", b"b"], "what": ["x", "y"], "stars": ["3", "4"], "when": ["2001-09-09"] * 2})
    frame = frame.with_columns(pl.col("stars", "when").cast(pl.Categorical))
    frame.write_parquet(tmp_path / "t.parquet")
    assert Table("t.parquet", **NAMES).read(tmp_path).interactions.drop(LINE, MILLISECONDS).rows() == [
        ("a", "x", 3.0, DAY), ("b", "y", 4.0, DAY)
    ]  # fmt: skip
    frame.with_columns(when=None).write_parquet(tmp_path / "t.parquet")
    with pytest.raises(InputError, match="2 with a time that is missing"):
        Table("t.parquet", **NAMES).read(tmp_path)


def test_times_in_nanoseconds_are_called_so(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(f"user_id,item_id,timestamp\n1,2,{16 * 10**17}\n")
    with pytest.raises(InputError, match="1 with a time beyond milliseconds"):
        Table("t.csv", rating=None).read(tmp_path)


def test_what_is_lost_of_items_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "t.csv").write_text(CSV)
    (tmp_path / "i.csv").write_text("what,title,year\na,A,1999\na,B,2000\nb,C,in 2001\nc,D,\n")
    items = Table("t.csv", items="i.csv", **NAMES).read(tmp_path).items
    assert items.select("title", "year").rows()[::2] == [("A", 1999), ("C", None)]
    told = capsys.readouterr().out
    assert "1 with an id that stands above already, of which the first counts (line 3)" in told
    assert "i.csv: 1 years are no numbers, such as 'in 2001', and unknown" in told
    pl.DataFrame({"what": ["a"], "genres": [[{"id": 1}]]}).write_parquet(tmp_path / "i.parquet")
    with pytest.raises(InputError, match=r"i\.parquet: the column of genres holds List\(Struct"):
        Table("t.csv", items="i.parquet", **NAMES).read(tmp_path)


@pytest.mark.parametrize("separator", ["::", "", "§"])
def test_a_separator_is_one_byte(separator: str) -> None:
    with pytest.raises(InputError, match=f"separator '{separator}': give one ASCII character"):
        Table("t.csv", separator=separator)


def test_a_missing_column_or_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(CSV)
    with pytest.raises(InputError, match=r"no column user_id \(there are: who, what, stars, when\)"):
        Table("t.csv").read(tmp_path)
    with pytest.raises(InputError, match=r"nowhere\.csv: neither in the data root"):
        Table("nowhere.csv").read(tmp_path)
    (tmp_path / "t.csv").write_text("")
    with pytest.raises(InputError, match=r"t\.csv: empty"):
        Table("t.csv").read(tmp_path)


@pytest.mark.parametrize("times", [[10**12 + 90, 10**12, 10**12 + 30], ["2020-01-01 10:00:00.09", "2020-01-01 10:00:00",
                                   "2020-01-01 10:00:00.03"]])  # fmt: skip
def test_rows_within_a_second_are_ordered_by_their_time(tmp_path: Path, times: list[object]) -> None:
    pl.DataFrame({"user_id": [1] * 3, "item_id": list("zxy"), "timestamp": times}).write_csv(tmp_path / "t.csv")
    encoded = encode(Table("t.csv", rating=None).read(tmp_path))
    order = encoded.items["raw_item_id"].gather(encoded.interactions["item_id"] - 1)
    assert order.to_list() == ["x", "y", "z"] and encoded.interactions["timestamp"].n_unique() == 1
    assert encoded.interactions.columns == ["user_id", "item_id", "rating", "timestamp"]


def test_a_duplicate_is_named_by_its_line(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(
        "user_id,item_id,rating,line\n" + "1,9,x,7\n" + "".join(f"1,{k},3,7\n" for k in range(150)) + "1,0,3,7\n"
    )
    raw = Table("t.csv", timestamp=None).read(tmp_path)
    with pytest.raises(InputError, match="line 153 rates item 0 by user 1 again"):
        encode(raw)


def test_ids_that_became_fractions_are_whole_again(tmp_path: Path) -> None:
    pl.DataFrame({"user_id": [1.0, 2.0], "item_id": [38.0, 7.0]}).write_parquet(tmp_path / "t.parquet")
    pl.DataFrame({"item_id": [7, 38], "title": ["seven", "many"]}).write_csv(tmp_path / "i.csv")
    source = Table("t.parquet", rating=None, timestamp=None, items="i.csv")
    assert encode(source.read(tmp_path)).items.select("raw_item_id", "title").rows() == [("38", "many"), ("7", "seven")]
    pl.DataFrame({"item_id": ["i7", "i38"], "title": ["seven", "many"]}).write_csv(tmp_path / "i.csv")
    with pytest.raises(InputError, match=r"i\.csv: none of its 2 ids is in .*: 'i7' here, '38' there"):
        source.read(tmp_path)


@pytest.mark.parametrize("day", [date(1995, 1, 1), datetime(1995, 12, 31, 23), 1995, "1995"])
def test_the_year_of_a_date_is_its_year(tmp_path: Path, day: object) -> None:
    pl.DataFrame({"user_id": [1], "item_id": [1]}).write_parquet(tmp_path / "t.parquet")
    pl.DataFrame({"item_id": [1, 2], "year": [day, None]}).write_parquet(tmp_path / "i.parquet")
    source = Table("t.parquet", rating=None, timestamp=None, items="i.parquet")
    assert source.read(tmp_path).items["year"].to_list() == [1995, None]


def test_what_no_table_can_be_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "no.parquet").write_text("no")
    pl.DataFrame({"user_id": [[1]], "item_id": [1]}).write_parquet(tmp_path / "lists.parquet")
    plain = {"rating": None, "timestamp": None}
    for name, words in (("no", "not readable as Parquet"), ("lists", "column user_id holds List")):
        with pytest.raises(InputError, match=words):
            Table(f"{name}.parquet", **plain).read(tmp_path)  # type: ignore[arg-type]
    for text in ("user_id,item_id,item_id\n1,2,3\n1,2,3,4\n", "user_id,item_id,item_id\n1,2,3\n"):
        (tmp_path / "twice.csv").write_text(text)  # line by line, and as a table
        with pytest.raises(InputError, match="two columns are called item_id"):
            Table("twice.csv", **plain).read(tmp_path)  # type: ignore[arg-type]
    (tmp_path / "nameless.csv").write_text("user_id,item_id,,\n1,2,3,4\n")  # which nobody can mean
    assert len(Table("nameless.csv", **plain).read(tmp_path).interactions) == 1  # type: ignore[arg-type]
    with pytest.raises(InputError, match="one twice"):
        Table("t.csv", user="item_id")
    with pytest.raises(InputError, match="no path"):
        Table("t.csv", dataset="../../elsewhere")


@pytest.mark.parametrize(
    ("ids", "text"),
    [([38.0, None], ["38", None]), ([38.0, 7.5], ["38.0", "7.5"]), ([1, 2], ["1", "2"]), (["a", None], ["a", None])],
)
def test_ids_as_text(ids: list[object], text: list[str | None]) -> None:
    assert as_text(pl.Series(ids)).to_list() == text
