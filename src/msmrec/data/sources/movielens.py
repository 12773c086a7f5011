"""MovieLens: every public release from 100K to 32M, downloaded with a checksum or read from a local folder.

Three layouts: u.data (tabs), *.dat ('::'), *.csv. The readers are fast because they trust; when a file does not parse,
`_first_bad_line` walks it once to say which line is wrong.
"""

import re
import urllib.error
import urllib.request
import zipfile
from hashlib import md5
from pathlib import Path
from typing import Literal

import polars as pl
from tqdm import tqdm

from msmrec.artifacts import InputError, atomic_file, build_once, file_digest, fingerprint, one_line
from msmrec.columns import GENRES, RATING, RAW_ITEM_ID, RAW_USER_ID, TAGS, TIMESTAMP, TITLE, YEAR
from msmrec.data.interactions import RawData
from msmrec.data.sources.base import FileColumns, Source

Release = Literal["ml-100k", "ml-1m", "ml-10m", "ml-20m", "ml-25m", "ml-32m", "ml-latest-small"]

_URL = "https://files.grouplens.org/datasets/movielens/{name}.zip"
# GroupLens publishes an .md5 beside most archives; ml-latest-small changes in place and has none that lasts.
_MD5 = {
    "ml-100k": "0e33842e24a9c977be4e0107933c0723",
    "ml-1m": "c4d9eecfca2ab87c1945afe126590906",
    "ml-25m": "6b51fb2759a8657d3bfcbfc42b592ada",
}
TAGS_FILE = "tags.csv"  # of the releases in CSV; not needed
_ID = "[0-9]{1,18}"
_HEADER = "userId,movieId,rating,timestamp"
_GENRES_100K = (
    "unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary", "Drama", "Fantasy",
    "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western",
)  # fmt: skip
_GENDER = {"M": "male", "F": "female"}
_AGE_1M = {1: "under 18", 18: "18-24", 25: "25-34", 35: "35-44", 45: "45-49", 50: "50-55", 56: "56 or older"}
_OCCUPATION_1M = dict(enumerate((
    "other", "academic/educator", "artist", "clerical/admin", "college/grad student", "customer service",
    "doctor/health care", "executive/managerial", "farmer", "homemaker", "K-12 student", "lawyer", "programmer",
    "retired", "sales/marketing", "scientist", "self-employed", "technician/engineer", "tradesman/craftsman",
    "unemployed", "writer",
)))  # fmt: skip


class MovieLens(Source):
    """One MovieLens release.

    Args:
        release: its official name; its files lie in the folder of that name under the data root.
    """

    def __init__(self, release: Release = "ml-1m") -> None:
        self.release = release

    @property
    def name(self) -> str:
        """The release."""
        return self.release

    @property
    def file_columns(self) -> FileColumns:
        """Those of the releases that have a header."""
        return FileColumns("userId", "movieId")

    def _layout(self) -> tuple[str, str, str]:
        """Names of the ratings, items and users file; no users file from ML-10M on."""
        if self.release == "ml-100k":
            return "u.data", "u.item", "u.user"
        if self.release == "ml-1m":
            return "ratings.dat", "movies.dat", "users.dat"
        if self.release == "ml-10m":
            return "ratings.dat", "movies.dat", ""
        return "ratings.csv", "movies.csv", ""

    def _folder(self, root: Path) -> Path:
        """The folder with the release's files, downloaded if it is not there."""
        names = [name for name in self._layout() if name]
        folder = next((f for f in (root / self.release, root) if (f / names[0]).is_file()), None)
        if folder is None:
            folder = root / self.release
            if folder.is_dir():
                raise InputError(f"{folder / names[0]}: not found; this folder needs {', '.join(names)}")
            download(self.release, root)
        for name in names:
            if not (folder / name).is_file():
                raise InputError(f"{folder / name}: not found; {self.release} needs {', '.join(names)} there")
        return folder

    def fingerprint(self, root: Path) -> str:
        """Depends on the content of the release's files."""
        folder = self._folder(root)
        names = [name for name in (*self._layout(), TAGS_FILE) if name and (folder / name).is_file()]
        return fingerprint(*(file_digest(folder / name) for name in names))

    def read(self, root: Path) -> RawData:
        """Reads the release's files.

        Raises:
            InputError: a file is missing or a line of it is malformed.
        """
        folder = self._folder(root)
        ratings, items, users = (folder / name for name in self._layout())
        described = _read_items(items)
        if (folder / TAGS_FILE).is_file():
            described = described.join(_read_tags(folder / TAGS_FILE), RAW_ITEM_ID, "left", maintain_order="left")
            described = described.with_columns(pl.col(TAGS).fill_null([]))
        return RawData(read_ratings(ratings), described, _read_users(users), str(ratings))


def read_ratings(path: Path) -> pl.DataFrame:
    """Reads u.data, ratings.dat or ratings.csv.

    Returns:
        raw_user_id, raw_item_id (categories as strings), rating, timestamp, in file order.
    """
    names = [RAW_USER_ID, RAW_ITEM_ID, RATING, TIMESTAMP]
    types = [pl.Int64, pl.Int64, pl.Float32, pl.Int64]
    # A one-character separator is read by many threads. '::' read as ':' makes empty columns between the real ones.
    step, separator = {".data": (1, "\t"), ".dat": (2, ":"), ".csv": (1, ",")}[path.suffix]
    columns = [f"column_{1 + step * k}" for k in range(4)]
    empty = [f"column_{2 + 2 * k}" for k in range(3)] if step == 2 else []
    schema = dict(zip(columns, types, strict=True)) | {name: pl.String() for name in empty}
    schema = {name: schema[name] for name in sorted(schema, key=lambda n: int(n.split("_")[1]))}
    if path.suffix == ".csv" and (first := _first_line(path)) not in ("", _HEADER):  # "": empty, as is said below
        raise InputError(f"{path}, line 1: expected {_HEADER}, found {first[:80]!r}; put the official file there")
    try:
        frame = pl.read_csv(
            path, separator=separator, has_header=False, skip_rows=path.suffix == ".csv", schema=schema,
            quote_char=None,
        )  # fmt: skip
        missing = pl.any_horizontal(pl.col(columns).is_null().any())
        extra = pl.any_horizontal(pl.col(empty).is_not_null().any()) if empty else pl.lit(False)
        if frame.select(missing | extra).item():
            raise pl.exceptions.ComputeError("missing fields")
        if frame.is_empty():
            raise InputError(f"{path}: empty; put the official file there")
    except (pl.exceptions.ComputeError, pl.exceptions.SchemaError, pl.exceptions.ShapeError) as error:
        raise InputError(_first_bad_line(path, separator * step) or f"{path}: {one_line(error)[:120]}") from None
    return frame.select(pl.col(old).alias(new) for old, new in zip(columns, names, strict=True))


def _first_line(path: Path) -> str:
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        return file.readline().strip()


def _first_bad_line(path: Path, separator: str) -> str | None:
    """Says which line is not user, item, rating, time."""
    number = r"-?[0-9]+(\.[0-9]+)?"
    good = re.compile(rf"{_ID}{separator}{_ID}{separator}{number}{separator}{_ID}(\.0+)?\s*")
    with path.open(encoding="utf-8", errors="replace") as file:
        for k, line in enumerate(file, 1):
            if not good.fullmatch(line) and not (path.suffix == ".csv" and k == 1):
                return (
                    f"{path}, line {k}: expected user{separator}item{separator}rating{separator}timestamp"
                    f", found {line.strip()[:80]!r}; mend or remove the line"
                ).replace("\t", "<tab>")
    return None


def _read_items(path: Path) -> pl.DataFrame:
    """Reads u.item, movies.dat or movies.csv: raw_item_id, title, year, genres."""
    if path.suffix == ".csv":
        rows = _read_columns(
            path, "movieId,title,genres", {"movieId": pl.Int64(), "title": pl.String(), "genres": pl.String()}
        )
        ids, titles = rows["movieId"], rows["title"]
        genres = rows["genres"].fill_null("")
    else:
        fields = 3 if path.suffix == ".dat" else 24
        lines = _split_lines(path, "::" if path.suffix == ".dat" else "|", fields)
        ids = pl.Series([int(row[0]) for row in lines], dtype=pl.Int64)
        titles = pl.Series([row[1] for row in lines])
        if path.suffix == ".dat":
            genres = pl.Series([row[2] for row in lines], dtype=pl.String)
        else:
            flags = ([g for g, flag in zip(_GENRES_100K, row[5:], strict=True) if flag == "1"] for row in lines)
            genres = pl.Series(["|".join(given) for given in flags], dtype=pl.String)
    year = titles.str.extract(r"\((\d{4})(?:[-–]\d{0,4})?\)\s*$").cast(pl.Int32)
    frame = pl.DataFrame({RAW_ITEM_ID: ids, TITLE: titles.str.strip_chars(), YEAR: year, GENRES: genres.str.split("|")})
    return frame.with_columns(
        pl.col(GENRES).list.eval(pl.element().filter(~pl.element().is_in(["unknown", "", "(no genres listed)"])))
    )


def _read_columns(path: Path, header: str, types: dict[str, pl.DataType]) -> pl.DataFrame:
    """Reads these columns of movies.csv or tags.csv."""
    try:
        return pl.read_csv(path, schema_overrides=types).select(*types)
    except pl.exceptions.PolarsError as error:
        said = one_line(error)[:120]
        raise InputError(f"{path}: not {header} ({said}); mend it, or put the official file there") from None


def _read_tags(path: Path) -> pl.DataFrame:
    """Reads tags.csv: raw_item_id and its `tags`, up to ten in lower case, those that most users gave first.

    They are what the catalogue says today: of all users and times, also those of a test part.
    """
    types = {"userId": pl.Int64(), "movieId": pl.Int64(), "tag": pl.String()}
    rows = _read_columns(path, "userId,movieId,tag,timestamp", types)
    given = rows.select(pl.col("movieId").alias(RAW_ITEM_ID), pl.col("tag").str.to_lowercase().str.strip_chars())
    counted = given.drop_nulls().group_by(RAW_ITEM_ID, "tag").len().sort("len", "tag", descending=[True, False])
    return counted.group_by(RAW_ITEM_ID, maintain_order=True).agg(pl.col("tag").head(10).alias(TAGS))


def _read_users(path: Path) -> pl.DataFrame:
    """Reads u.user or users.dat: raw_user_id, gender, age, occupation, zip_code. Empty where the release has none."""
    rows = []
    separator = {".user": "|", ".dat": "::"}.get(path.suffix, "")
    for k, row in enumerate(_split_lines(path, separator, 5) if separator else [], 1):
        try:
            if separator == "|":
                user, age, gender, job, code = row
            else:
                user, gender, age, job, code = row
                age, job = _AGE_1M[int(age)], _OCCUPATION_1M[int(job)]
            rows.append((int(user), _GENDER[gender], age, job, code))
        except (KeyError, ValueError):
            raise InputError(
                f"{path}, line {k}: a gender, age or occupation that the release has no code for, found"
                f" {separator.join(row)[:80]!r}; mend or remove the line"
            ) from None
    names = [RAW_USER_ID, "gender", "age", "occupation", "zip_code"]
    return pl.DataFrame(rows, schema=dict(zip(names, [pl.Int64, *[pl.String] * 4], strict=True)), orient="row")


def _split_lines(path: Path, separator: str, fields: int) -> list[list[str]]:
    """Splits a small latin-1 file, checking that the first field is a number and each line has `fields` fields."""
    rows = [line.split(separator) for line in path.read_text(encoding="latin-1").split("\n") if line.strip()]
    if not rows:
        raise InputError(f"{path}: empty; put the official file there")
    for k, row in enumerate(rows, 1):
        if len(row) != fields or not re.fullmatch(_ID, row[0]):
            raise InputError(
                f"{path}, line {k}: expected {fields} fields separated by {separator!r}, found"
                f" {separator.join(row)[:80]!r}; mend or remove the line"
            )
    return [[field.strip() for field in row] for row in rows]


def download(release: str, root: Path) -> None:
    """Fetches and unpacks the official archive into `root`/`release`, checking its MD5 where one is published.

    Raises:
        InputError: no network, or another checksum; nothing is left behind.
    """
    url = _URL.format(name=release)
    root.mkdir(parents=True, exist_ok=True)
    try:
        with atomic_file(root / f"{release}.zip") as temporary, urllib.request.urlopen(url, timeout=30) as response:
            digest = md5(usedforsecurity=False)
            total = int(response.headers.get("Content-Length", 0)) or None
            with temporary.open("wb") as file, tqdm(desc=url, total=total, unit="B", unit_scale=True) as bar:
                while block := response.read(1 << 20):
                    file.write(block)
                    digest.update(block)
                    bar.update(len(block))
            if release in _MD5 and digest.hexdigest() != _MD5[release]:
                raise InputError(f"{url}: MD5 {digest.hexdigest()} instead of {_MD5[release]}; try again")
    except (urllib.error.URLError, TimeoutError, OSError) as error:
        raise InputError(
            f"{root / release}: not there, and {url} could not be fetched ({error}); unpack the archive to"
            f" {root / release}, or name the folder that holds it by --data.root or MSMREC_DATA"
        ) from None

    def unpack(folder: Path) -> None:
        with zipfile.ZipFile(root / f"{release}.zip") as archive:
            for member in archive.infolist():
                if not member.is_dir():  # the archive's own top folder has another name for ML-10M
                    (folder / Path(member.filename).name).write_bytes(archive.read(member))

    build_once(root / release, unpack)
