"""Amazon reviews, releases of 2014, 2018 and 2023, any category: reviews with or without text, or ratings only.

The files lie in amazon/<category>_<release>/ under the data root, under their own names, gzipped or not:

            reviews (one of)                                                    metadata (optional)
    2014    reviews_<category>_5.json, reviews_<category>.json, ratings_<category>.csv    meta_<category>.json
    2018    <category>_5.json, <category>.json, <category>.csv                            meta_<category>.json
    2023    <category>.jsonl, <category>.csv                                              meta_<category>.jsonl

Memory while reading is a block of the file and the four columns. Times of 2014 and 2018 are days, so ties inside a user
are many; they are broken by file order. 2023's items are its parent_asin, under which variants of a product meet.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import polars as pl

from msmrec.artifacts import InputError, file_digest, fingerprint
from msmrec.columns import LINE, RATING, RAW_ITEM_ID, RAW_USER_ID, TIMESTAMP
from msmrec.data.interactions import RawData
from msmrec.data.sources.amazon_items import read_items
from msmrec.data.sources.base import FileColumns, Source
from msmrec.data.sources.border import Border, interactions
from msmrec.data.sources.json_lines import blocks, read_fields

Release = Literal["2014", "2018", "2023"]

FORMAT = 2  # raise when the same files come to be read otherwise
SCALE = (1.0, 5.0)
_COLUMNS = (RAW_USER_ID, RAW_ITEM_ID, RATING, TIMESTAMP)
_FIELDS = {
    "2014": ("reviewerID", "asin", "overall", "unixReviewTime"),
    "2018": ("reviewerID", "asin", "overall", "unixReviewTime"),
    "2023": ("user_id", "parent_asin", "rating", "timestamp"),
}
_REVIEWS = {
    "2014": ("reviews_{0}_5.json", "reviews_{0}.json", "ratings_{0}.csv"),
    "2018": ("{0}_5.json", "{0}.json", "{0}.csv"),
    "2023": ("{0}.jsonl", "{0}.csv"),
}
_META = {"2014": "meta_{0}.json", "2018": "meta_{0}.json", "2023": "meta_{0}.jsonl"}


class Amazon(Source):
    """One category of one release.

    Args:
        category: as the files' names have it, e.g. Musical_Instruments.
        release: the year.
        reviews: name of the file to read, where the folder holds several.
        max_bad_share: share of a file's rows that may be unreadable; they are left out and counted.
    """

    def __init__(
        self,
        category: str = "Musical_Instruments",
        release: Release = "2014",
        reviews: str | None = None,
        max_bad_share: float = 0.01,
    ) -> None:
        self.category, self.release, self.reviews = category, release, reviews
        self.max_bad_share = max_bad_share

    @property
    def name(self) -> str:
        """Category and release."""
        return f"{self.category}_{self.release}"

    @property
    def file_columns(self) -> FileColumns:
        """The release's."""
        user, item, _, timestamp = _FIELDS[self.release]
        return FileColumns(user, item, timestamp)

    def files(self, root: Path) -> tuple[Path, Path | None]:
        """The reviews, and the metadata where there is some.

        Raises:
            InputError: there are no reviews, or several files of them and none is named.
        """
        wanted = [self.reviews] if self.reviews else [n.format(self.category) for n in _REVIEWS[self.release]]
        names = [name + end for name in wanted for end in ("", ".gz")]
        folders = (root / "amazon" / self.name, root / self.name, root)
        for folder in folders:
            if found := [folder / name for name in names if (folder / name).is_file()]:
                break
        else:
            raise InputError(
                f"{folders[0]}: no reviews; put one of {', '.join(wanted)} there (as published, or with .gz), and"
                f" {_META[self.release].format(self.category)} for titles, or name the folder that holds amazon/ by"
                " --data.root or MSMREC_DATA"
            )
        if len(found) > 1 and not self.reviews:
            raise InputError(f"{folder}: {' and '.join(path.name for path in found)}; say which by source.reviews")
        meta = [folder / (_META[self.release].format(self.category) + end) for end in (".gz", "")]
        return found[0], next((path for path in meta if path.is_file()), None)

    def fingerprint(self, root: Path) -> str:
        """Depends on the content of the files."""
        return fingerprint(FORMAT, *(file_digest(path) if path else None for path in self.files(root)))

    def read(self, root: Path) -> RawData:
        """Reads reviews, and the metadata of the items that have any.

        Raises:
            InputError: a file is missing, cut off, or too many of its lines cannot be read.
        """
        reviews, meta = self.files(root)
        border = Border(reviews, self.max_bad_share)
        ratings = read_reviews(border, self.release)
        if meta is None:
            print(f"{reviews.parent}: no {_META[self.release].format(self.category)}: titles are ids", flush=True)
            items = pl.DataFrame(schema={RAW_ITEM_ID: pl.String})
        else:
            rated = set(ratings[RAW_ITEM_ID].unique().to_list())
            items = read_items(Border(meta, self.max_bad_share), rated)
        return RawData(ratings, items, pl.DataFrame(schema={RAW_USER_ID: pl.String}), str(reviews), border.refused)


def read_reviews(border: Border, release: Release) -> pl.DataFrame:
    """Reads the file of reviews or ratings that the border stands at.

    Returns:
        raw_user_id, raw_item_id, rating, timestamp (s), in file order.
    """
    csv = ".csv" in border.path.suffixes
    frames = _ratings(border, release) if csv else read_fields(border.path, _FIELDS[release], border)
    kept, rows = [], 0
    for frame in frames:
        named = frame.rename(dict(zip(_FIELDS[release], _COLUMNS, strict=True)))
        kept.append(interactions(named, border, SCALE))
        rows = int(frame[LINE][-1]) if len(frame) else rows
        border.check(rows)
    if not rows:
        raise InputError(f"{border.path}: empty; put the published file there")
    border.close(rows)
    return pl.concat(kept, rechunk=False)  # a copy would double the memory


def _ratings(border: Border, release: Release) -> Iterator[pl.DataFrame]:
    """Ratings-only files: 2014 has user, item; 2018 has item, user; 2023 has a header that says so."""
    user, item, *others = _FIELDS[release]
    names = [item, user, *others] if release == "2018" else [user, item, *others]
    first = 1
    for block in blocks(border.path):
        text = pl.DataFrame({"text": block.decode("utf-8", "replace").rstrip("\n").split("\n")})
        frame = text.with_row_index(LINE, first).with_columns(
            pl.col(LINE).cast(pl.Int64), pl.col("text").str.strip_chars("\r").str.split(",")
        )
        first += len(frame)
        if frame[LINE][0] == 1 and frame["text"][0][-1] == "timestamp":
            names = [name.strip() for name in frame["text"][0]]
            if sorted(names) != sorted([user, item, *others]):
                raise InputError(f"{border.path}, line 1: expected {user},{item},rating,timestamp, found {names}")
            frame = frame[1:]
        border.refuse("not four fields", frame.filter(pl.col("text").list.len() != 4)[LINE])
        frame = frame.filter(pl.col("text").list.len() == 4)
        yield frame.with_columns(pl.col("text").list.to_struct(fields=names)).unnest("text")
