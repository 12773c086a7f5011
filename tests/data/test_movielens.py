"""The MovieLens readers: every layout, real counts, and what they say of broken files."""

from pathlib import Path

import pytest

from msmrec.artifacts import InputError
from msmrec.data.prepare import SplitProtocol, prepare
from msmrec.data.sources.movielens import MovieLens, _read_items, download

RATINGS = {
    "ml-100k": ("u.data", "1\t10\t4\t100\n2\t20\t5\t200\n"),
    "ml-1m": ("ratings.dat", "1::10::4::100\n2::20::5::200\n"),
    "ml-20m": ("ratings.csv", "userId,movieId,rating,timestamp\n1,10,4.0,100\n2,20,5.0,200\n"),
}
ITEMS = {
    "ml-100k": ("u.item", "10|Léon (1994)|01-Jan-1994||url|0|1" + "|0" * 17 + "\n20|unknown||||1" + "|0" * 18 + "\n"),
    "ml-1m": ("movies.dat", "10::Léon (1994)::Action\n20::Untitled::Drama|War\n"),
    "ml-20m": ("movies.csv", 'movieId,title,genres\n10,"Léon (1994)",Action\n20,"A, B",(no genres listed)\n'),
}
USERS = {
    "ml-100k": ("u.user", "1|24|M|writer|1\n2|30|F|other|2\n"),
    "ml-1m": ("users.dat", "1::F::1::10::4\n2::M::56::16::7\n"),
}


def write(root: Path, release: str, ratings: str | None = None) -> Path:
    folder = root / release
    folder.mkdir()
    encoding = "utf-8" if release == "ml-20m" else "latin-1"
    for table in (RATINGS, ITEMS, USERS):
        if release in table:
            name, text = table[release]
            (folder / name).write_text(ratings if ratings is not None and table is RATINGS else text, encoding=encoding)
    return root


@pytest.mark.parametrize("release", ["ml-100k", "ml-1m", "ml-20m"])
def test_layouts(tmp_path: Path, release: str) -> None:
    data = MovieLens(release).read(write(tmp_path, release))  # type: ignore[arg-type]
    assert data.interactions.rows() == [(1, 10, 4.0, 100), (2, 20, 5.0, 200)]
    first, second = data.items.rows(named=True)
    assert (first["title"], first["year"], first["genres"]) == ("Léon (1994)", 1994, ["Action"])
    assert second["year"] is None and second["genres"] == (["Drama", "War"] if release == "ml-1m" else [])


@pytest.mark.parametrize(
    ("release", "line"),
    [
        ("ml-1m", "1::20::x::300"), ("ml-1m", "1::20::4"), ("ml-1m", "1:7:20::4::300"), ("ml-1m", "1::20::4::300::9"),
        ("ml-100k", "1 20 4 300"), ("ml-100k", "1\t20\t4"), ("ml-20m", "1,20,4.0"), ("ml-20m", "1,20,4.0,yesterday"),
        ("ml-1m", "1::20::4::" + "9" * 20), ("ml-20m", "1,٢,4.0,300"),
    ],
)  # fmt: skip
def test_a_malformed_line_is_named(tmp_path: Path, release: str, line: str) -> None:
    good = RATINGS[release][1]
    with pytest.raises(InputError) as caught:
        MovieLens(release).read(write(tmp_path, release, good + line + "\n" + good))  # type: ignore[arg-type]
    assert f"{RATINGS[release][0]}, line {good.count(chr(10)) + 1}:" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("header", ["", "movieId,userId,rating,timestamp\n"])
def test_ratings_in_csv_need_their_header(tmp_path: Path, header: str) -> None:
    """The first rating would be taken for it, and users for films."""
    rows = RATINGS["ml-20m"][1].partition("\n")[2]
    with pytest.raises(InputError, match=r"ratings\.csv, line 1: expected userId,movieId,rating,timestamp, found"):
        MovieLens("ml-20m").read(write(tmp_path, "ml-20m", header + rows))


def test_missing_and_empty_files(tmp_path: Path) -> None:
    root = write(tmp_path, "ml-1m", "")
    with pytest.raises(InputError, match=r"ratings\.dat: empty"):
        MovieLens("ml-1m").read(root)
    (root / "ml-1m" / "movies.dat").write_text("")
    with pytest.raises(InputError, match=r"movies\.dat: empty"):
        _read_items(root / "ml-1m" / "movies.dat")
    (root / "ml-1m" / "movies.dat").unlink()
    with pytest.raises(InputError, match=r"movies\.dat: not found"):
        MovieLens("ml-1m").read(root)


def test_without_a_network_the_error_says_where_to_put_the_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("msmrec.data.sources.movielens._URL", "http://127.0.0.1:9/{name}.zip")  # nobody listens there
    with pytest.raises(InputError, match="unpack the archive to"):
        download("ml-1m", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_download_checks_unpacks_and_leaves_no_wrong_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import hashlib
    import zipfile

    archive = tmp_path / "ml-1m.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("ml-1m/ratings.dat", RATINGS["ml-1m"][1])
    monkeypatch.setattr("msmrec.data.sources.movielens._URL", f"file://{tmp_path}/{{name}}.zip")
    root = tmp_path / "root"
    with pytest.raises(InputError, match="MD5"):
        download("ml-1m", root)
    assert not (root / "ml-1m").exists() and not (root / "ml-1m.zip").exists()
    monkeypatch.setitem(
        __import__("msmrec.data.sources.movielens", fromlist=["_MD5"])._MD5, "ml-1m",
        hashlib.md5(archive.read_bytes()).hexdigest(),
    )  # fmt: skip
    download("ml-1m", root)
    assert (root / "ml-1m" / "ratings.dat").read_text() == RATINGS["ml-1m"][1]


@pytest.mark.parametrize(
    ("release", "users", "items", "rows"),
    [("ml-100k", 943, 1349, 99_287), ("ml-1m", 6040, 3416, 999_611), ("ml-latest-small", 610, 3650, 90_274)],
)
def test_real_counts(real_data: Path, tmp_path: Path, release: str, users: int, items: int, rows: int) -> None:
    info = prepare(MovieLens(release), real_data, tmp_path, SplitProtocol()).info  # type: ignore[arg-type]
    assert (info["num_users"], info["num_items"], info["num_interactions"]) == (users, items, rows)
    assert info["num_val"] == info["num_test"] == users


def test_a_prepared_dataset_is_reused_and_a_killed_one_is_made_again(tmp_path: Path) -> None:
    root = write(tmp_path, "ml-1m")
    protocol = SplitProtocol(min_user_count=0, min_item_count=0)
    dataset = prepare(MovieLens("ml-1m"), root, tmp_path / "cache", protocol)
    stamp = (dataset.folder / "dataset.json").stat().st_mtime_ns
    assert (
        prepare(MovieLens("ml-1m"), root, tmp_path / "cache", protocol).folder / "dataset.json"
    ).stat().st_mtime_ns == stamp
    # what a kill in the middle leaves: the temporary folder alone
    dataset.folder.rename(dataset.folder.parent / f".tmp-{dataset.folder.name}")
    again = prepare(MovieLens("ml-1m"), root, tmp_path / "cache", protocol)
    assert again.info == dataset.info and not (dataset.folder.parent / f".tmp-{dataset.folder.name}").exists()


def test_tags_of_the_csv_releases(tmp_path: Path) -> None:
    folder = tmp_path / "ml-latest-small"
    folder.mkdir()
    (folder / "ratings.csv").write_text("userId,movieId,rating,timestamp\n1,10,4.0,5\n1,20,3.0,6\n")
    (folder / "movies.csv").write_text('movieId,title,genres\n10,"A (1999)",Drama\n20,"B (2000)",War\n')
    without = MovieLens("ml-latest-small").fingerprint(tmp_path)
    (folder / "tags.csv").write_text("userId,movieId,tag,timestamp\n1,10,Funny,1\n2,10,funny ,2\n3,10,a,3\n3,10,b,3\n")
    source = MovieLens("ml-latest-small")
    assert source.read(tmp_path).items["tags"].to_list() == [["funny", "a", "b"], []]
    assert source.fingerprint(tmp_path) != without
    (folder / "tags.csv").write_text("user,movie\n1,2\n")
    with pytest.raises(InputError, match=r"tags.csv: not userId,movieId,tag,timestamp"):
        source.read(tmp_path)


@pytest.mark.parametrize(
    "text",
    ["movieId,title,genres\nten,A,Drama\n", "id,name\n10,A\n", 'movieId,title,genres\n10,"A (1999),Drama\n', ""],
)
def test_a_malformed_file_of_films_is_named(tmp_path: Path, text: str) -> None:
    (write(tmp_path, "ml-20m") / "ml-20m" / "movies.csv").write_text(text)
    with pytest.raises(InputError, match=r"movies\.csv: not movieId,title,genres \(") as caught:
        MovieLens("ml-20m").read(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("release", "line"),
    [
        ("ml-100k", "3|24|X|writer|1"), ("ml-1m", "3::X::25::10::4"), ("ml-1m", "3::F::26::10::4"),
        ("ml-1m", "3::F::25::21::4"), ("ml-1m", "3::F::25::-1::4"), ("ml-1m", "3::F::young::1::4"),
    ],
)  # fmt: skip
def test_a_code_that_no_user_has_is_named(tmp_path: Path, release: str, line: str) -> None:
    name, good = USERS[release]
    (write(tmp_path, release) / release / name).write_text(good + line + "\n")
    with pytest.raises(InputError) as caught:
        MovieLens(release).read(tmp_path)  # type: ignore[arg-type]
    assert f"{name}, line 3: " in str(caught.value) and f"found {line!r}; mend" in str(caught.value)
