"""What is left out at the border, how it is told, and JSON Lines as they come: strict, loose, broken, cut off."""

import gzip
import json
import random
from pathlib import Path

import polars as pl
import pytest

from msmrec.artifacts import InputError
from msmrec.columns import LINE, MILLISECONDS
from msmrec.data.sources import json_lines
from msmrec.data.sources.border import Border, interactions, seconds

NAMES = ["user", "item", "rating", "time"]


def test_rows_are_refused_by_kind_with_their_lines(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [
        ("a", "x", "4", "1000000000"), ("", "x", "4", "1000000000"), ("a", None, "4", "1000000000"),
        ("a", "x", "nan", "1000000000"), ("a", "x", "six", "1000000000"), ("a", "x", "6", "1000000000"),
        ("a", "x", "1", "-5"), ("b", "y", "5.0", "1500000000123"), ("c", "z", "1", "5"), ("c", "y", "2", "90000000000"),
    ]  # fmt: skip
    names = ["raw_user_id", "raw_item_id", "rating", "timestamp"]
    frame = pl.DataFrame(rows, schema=names, orient="row").with_row_index(LINE, 11)
    border = Border(Path("my.csv"), 0.6)
    kept = interactions(frame, border, (1, 5))
    assert kept.drop(LINE, MILLISECONDS).rows() == [
        ("a", "x", 4.0, 1_000_000_000), ("b", "y", 5.0, 1_500_000_000), ("c", "z", 1.0, 5),
        ("c", "y", 2.0, 90_000_000_000),
    ]  # fmt: skip
    assert list(border.refused.values()) == [1, 1, 2, 1, 1]
    border.close(10)
    told = capsys.readouterr().out
    assert told.count("\n") == 1
    assert "2 with a rating that is no number (lines 14, 15)" in told and "outside 1 to 5 (line 16)" in told
    assert "1 with a time before 1995 (line 19), 1 with a time in the future (line 20)" in told
    border.max_bad_share = 0.59
    with pytest.raises(InputError, match=r"my\.csv: 6 of 10 rows cannot be read.*max_bad_share 0\.59") as caught:
        border.close(10)
    assert "\n" not in str(caught.value)


def test_only_the_first_lines_are_named() -> None:
    border = Border(Path("f"), 0)
    border.refuse("dust", [3])
    border.refuse("dust", range(7, 1000))
    with pytest.raises(InputError, match=r"994 with dust \(lines 3, 7, 8, \.\.\.\)"):
        border.check(10_000)


def write(path: Path, lines: list[str]) -> Path:
    with gzip.open(path, "wt") if path.suffix == ".gz" else path.open("w") as file:
        file.write("\n".join(lines))
    return path


def records(count: int) -> list[dict[str, object]]:
    rng = random.Random(0)
    words = ["it's", 'a "great"', "'rating': 9,", '"user": "x"', "\\", "é\n", "good"]
    return [
        {"user": f"U{k}", "text": " ".join(rng.choices(words, k=5)), "item": f"I'{k}" if k % 7 == 0 else f"I{k}",
         "rating": float(k % 5), "time": k}
        for k in range(count)
    ]  # fmt: skip


@pytest.mark.parametrize("loose", [False, True])
@pytest.mark.parametrize("block", [700, 1 << 20])
def test_strict_and_loose_lines_give_the_same(
    tmp_path: Path, loose: bool, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(json_lines.blocks, "__defaults__", (block,))
    made = records(300)
    path = write(tmp_path / "a.json.gz", [repr(row) if loose else json.dumps(row) for row in made])
    border = Border(path, 0)
    frame = pl.concat(json_lines.read_fields(path, NAMES, border))
    expected = [(row["user"], row["item"], float(row["rating"]), row["time"]) for row in made]  # type: ignore[arg-type]
    assert [(u, i, float(r), int(t)) for u, i, r, t in frame.select(NAMES).iter_rows()] == expected
    assert frame[LINE].to_list() == list(range(1, 301)) and not border.refused


@pytest.mark.parametrize("loose", [False, True])
def test_broken_lines_are_found_among_many(tmp_path: Path, loose: bool) -> None:
    lines = [repr(row) if loose else json.dumps(row) for row in records(1000)]
    lines[0], lines[499], lines[500], lines[998] = "[1, 2]", lines[499][:20], "", "null"
    border = Border(write(tmp_path / "a.json", lines), 0)
    frame = pl.concat(json_lines.read_fields(border.path, NAMES, border))
    assert frame[LINE].to_list() == [k for k in range(1, 1001) if k not in (1, 500, 501, 999)]
    with pytest.raises(InputError, match=r"3 with neither a JSON object nor a Python dict \(lines 1, 500, 999\)"):
        border.check(1000)


def test_a_cut_off_gzip_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "a.json.gz", [json.dumps(row) for row in records(500)])
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(InputError, match=r"a\.json\.gz: cannot be unpacked"):
        list(json_lines.blocks(path))
    path.write_bytes(b"<html>not found</html>")
    with pytest.raises(InputError, match=r"a\.json\.gz: cannot be unpacked"):
        list(json_lines.blocks(path))


def test_times_that_are_text_by_another_name() -> None:
    for times in (pl.Series(["5"], dtype=pl.Categorical), pl.Series([b"5"]), pl.Series(["1970-01-01T00:00:05"])):
        assert seconds(times, Path("f")).to_list() == [5]
    assert seconds(pl.Series([None]), Path("f")).to_list() == [None]
