"""Vectors that someone else has computed, from a file.

visual.csv      the item id, then numbers; with or without a header (the layout of MMTF-14K's files)
visual.parquet  the same, or the id and one column of lists
visual.npy      (n, D) numbers; the ids stand in a text file, one a line
"""

import logging
from pathlib import Path

import numpy as np
import polars as pl
import polars.selectors as cs

from msmrec.artifacts import InputError, first_line
from msmrec.columns import RAW_ITEM_ID
from msmrec.data.prepare import Dataset
from msmrec.data.root import find
from msmrec.media.features import Features, ItemFeatures

log = logging.getLogger(__name__)

MISSING = ("", "na", "n/a", "null", "none")  # in a row of numbers; they make no header of it


class FeatureFile(ItemFeatures):
    """Item features from a file of precomputed vectors, by the dataset's own item ids.

    Rows of items that the dataset lacks are passed over and counted in the log, as are items without a row.

    Args:
        path: .npy, .parquet or .csv; a relative one is looked for under the data root, then here.
        ids: for .npy: a text file with the item id of each row.
        id_column: for .parquet and .csv with a header: the column of item ids; by default the first.

    Raises:
        InputError: when vectors are asked for: no such file; rows of different lengths, or more or fewer than ids; a
            value that is missing, no number or not finite; an id that stands twice; no row of any of the items.
    """

    def __init__(self, path: str, ids: str | None = None, id_column: str | None = None) -> None:
        if Path(path).suffix not in (".npy", ".parquet", ".csv"):
            raise InputError(f"{path}: give a .npy, .parquet or .csv file of features")
        if (Path(path).suffix == ".npy") != (ids is not None):
            raise InputError(f"{path}: only a .npy file needs ids: a text file, one item id a line")
        self.path, self.ids, self.id_column = path, ids, id_column

    def vectors(self, dataset: Dataset, root: Path, cache: Path) -> Features:
        """See `ItemFeatures.vectors`."""
        path = find(self.path, root)
        raw, rows = self._read(path, root)
        with np.errstate(over="ignore"):  # too large for float32: becomes infinite, which is refused
            rows = rows.astype(np.float32)
        if len(bad := np.flatnonzero(~np.isfinite(rows).all(1))):
            column = int(np.flatnonzero(~np.isfinite(rows[bad[0]]))[0])
            raise InputError(
                f"{path}: item {raw[int(bad[0])]} has a missing or infinite value in feature {column + 1} "
                f"({len(bad):,} such rows); mend or remove them"
            )
        if not (once := raw.is_first_distinct()).all():
            twice = raw.filter(~once)
            raise InputError(f"{path}: item {twice[0]} stands there twice ({len(twice):,} such rows); keep one of each")
        ids = pl.DataFrame({"raw": dataset.items[RAW_ITEM_ID].cast(pl.String)}).with_row_index("item", offset=1)
        known = pl.DataFrame({"raw": raw}).with_row_index("row").join(ids, on="raw")
        if known.is_empty():
            raise InputError(
                f"{path}: none of its {len(raw):,} ids ({raw[0]}, ...) is an item of {dataset.info['name']} "
                f"({ids['raw'][0]}, ...); give the features of this dataset, by its own ids"
            )
        log.info(
            "%s: %d of %d items have a row; %d rows are of no item",
            path, len(known), dataset.num_items, len(raw) - len(known),
        )  # fmt: skip
        vectors = np.zeros((dataset.num_items + 1, rows.shape[1]), np.float32)
        present = np.zeros(dataset.num_items + 1, bool)
        item = known["item"].to_numpy()
        vectors[item], present[item] = rows[known["row"].to_numpy()], True
        return Features(vectors, present)

    def _read(self, path: Path, root: Path) -> tuple[pl.Series, np.ndarray]:
        """Ids as written (n,), and numbers (n, D), NaN where one is missing."""
        try:
            if path.suffix == ".npy":
                return self._numpy(path, root)
            frame = pl.read_parquet(path) if path.suffix == ".parquet" else _csv(path, self.id_column)
        except (OSError, ValueError, pl.exceptions.PolarsError) as error:
            raise InputError(f"{path}: cannot be read ({first_line(error)}); mend the file") from None
        name = self.id_column or (frame.columns[0] if frame.columns else "")
        if name not in frame.columns or frame.is_empty() or frame.width < 2:
            raise InputError(
                f"{path}: {frame.height:,} rows, {frame.width} columns, no id column {name!r} with features beside it; "
                "mend the file or id_column"
            )
        raw = _as_id(frame[name])
        if raw.null_count():
            raise InputError(f"{path}: no item id in data row {raw.is_null().arg_true()[0] + 1}; mend the file")
        return raw, _numbers(path, raw, frame.drop(name))

    def _numpy(self, path: Path, root: Path) -> tuple[pl.Series, np.ndarray]:
        assert self.ids is not None
        rows = np.load(path, allow_pickle=False)
        ids = find(self.ids, root)
        raw = pl.Series([line.strip() for line in ids.read_text().splitlines()], dtype=pl.String)
        if rows.ndim != 2 or rows.dtype.kind not in "fiu" or not rows.shape[1]:
            raise InputError(f"{path}: shape {rows.shape} of {rows.dtype}; give a matrix of numbers, a row an item")
        if len(rows) != len(raw):
            raise InputError(f"{path} has {len(rows):,} rows, {ids} has {len(raw):,} ids; give one id a row")
        if not len(raw) or (raw == "").any():
            raise InputError(f"{ids}: empty, or an empty line in it; give one item id a line")
        return raw, rows


def _csv(path: Path, id_column: str | None) -> pl.DataFrame:
    """All columns as text; the first line is a header when it names `id_column`, has no id or a word after it."""
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        first = pl.Series(file.readline().rstrip("\r\n").split(","), dtype=pl.String).str.strip_chars(" \"'")
    word = first.cast(pl.Float64, strict=False).is_null() & ~first.str.to_lowercase().is_in(MISSING)
    header = bool(word[1:].any()) or first[0] == "" or id_column in first.to_list()
    return pl.read_csv(path, has_header=header, infer_schema=False)


def _as_id(ids: pl.Series) -> pl.Series:
    """Ids as the dataset writes them: whole numbers that some program saved as 1.0 are 1."""
    text = ids.cast(pl.String).str.strip_chars()
    return text.str.replace(r"^(\d+)\.0+$", "${1}")


def _numbers(path: Path, raw: pl.Series, columns: pl.DataFrame) -> np.ndarray:
    """(n, D) float64 from columns of numbers, of text that holds numbers, or from one column of lists."""
    lists = columns.select(cs.list() | cs.array())
    if lists.width:
        name = lists.columns[0]
        vectors = columns[name] if isinstance(columns[name].dtype, pl.List) else columns[name].arr.to_list()
        lengths = vectors.list.len().fill_null(0)
        if columns.width > 1 or not lengths.min() or lengths.n_unique() > 1:
            wrong = int((lengths != lengths[0]).arg_max() or 0)
            raise InputError(
                f"{path}: give one column of vectors, of one length; {columns.width} columns, item {raw[wrong]} has "
                f"{lengths[wrong]} numbers, item {raw[0]} {lengths[0]}"
            )
        columns = pl.DataFrame({"value": vectors.explode()})
        width = int(lengths[0])
    else:
        width = columns.width
    texts = columns.select(cs.string())
    if texts.width:
        parsed = columns.with_columns(cs.string().str.strip_chars().cast(pl.Float64, strict=False))
        for name in texts.columns:  # a word is no number; an empty field is a missing value, named by the caller
            odd = parsed[name].is_null() & columns[name].is_not_null() & (columns[name].str.strip_chars() != "")
            if odd.any():
                row = int(odd.arg_true()[0])
                raise InputError(
                    f"{path}: column {name!r} holds {columns[name][row]!r}, no number, for item {raw[row]}; "
                    "leave only numbers beside the ids"
                )
        columns = parsed
    if not all(dtype.is_numeric() for dtype in columns.dtypes):
        odd_column = next(n for n, dtype in columns.schema.items() if not dtype.is_numeric())
        raise InputError(f"{path}: column {odd_column!r} holds {columns[odd_column].dtype}; leave only numbers")
    return columns.cast(pl.Float64).fill_null(float("nan")).to_numpy().reshape(-1, width)
